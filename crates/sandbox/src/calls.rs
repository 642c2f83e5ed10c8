//! Which system calls, by seccomp: those that look into other processes, change the machine, or have cost kernels their
//! safety. A call is refused with EPERM, as if the user had no right to it.

use crate::{Missing, Network, Profile};
use libc as c;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};
use std::collections::BTreeMap;

#[rustfmt::skip]
const REFUSED: &[i64] = &[
    // Other processes.
    c::SYS_ptrace, c::SYS_process_vm_readv, c::SYS_process_vm_writev, c::SYS_process_madvise, c::SYS_kcmp, c::SYS_pidfd_getfd,
    // Mounts and namespaces.
    c::SYS_mount, c::SYS_umount2, c::SYS_pivot_root, c::SYS_move_mount, c::SYS_open_tree, c::SYS_fsopen, c::SYS_fsconfig,
    c::SYS_fsmount, c::SYS_fspick, c::SYS_mount_setattr, c::SYS_unshare, c::SYS_setns, c::SYS_chroot,
    c::SYS_open_by_handle_at, c::SYS_quotactl, c::SYS_quotactl_fd,
    // The kernel and the machine.
    c::SYS_kexec_load, c::SYS_init_module, c::SYS_finit_module, c::SYS_delete_module, c::SYS_bpf, c::SYS_perf_event_open,
    c::SYS_syslog, c::SYS_acct, c::SYS_reboot, c::SYS_swapon, c::SYS_swapoff, c::SYS_sethostname, c::SYS_setdomainname,
    c::SYS_settimeofday, c::SYS_clock_settime, c::SYS_clock_adjtime, c::SYS_adjtimex,
    // Keys of the user, and interfaces with many bugs.
    c::SYS_keyctl, c::SYS_add_key, c::SYS_request_key, c::SYS_userfaultfd, c::SYS_io_uring_setup, c::SYS_io_uring_enter,
    c::SYS_io_uring_register,
];

#[cfg(target_arch = "x86_64")]
const ARCH: Option<TargetArch> = Some(TargetArch::x86_64);
#[cfg(target_arch = "aarch64")]
const ARCH: Option<TargetArch> = Some(TargetArch::aarch64);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCH: Option<TargetArch> = None;

/// Of x86-64 only; their numbers mean something else elsewhere.
#[cfg(target_arch = "x86_64")]
const OF_ARCH: &[i64] = &[c::SYS_kexec_file_load, c::SYS_iopl, c::SYS_ioperm, c::SYS_lookup_dcookie];
#[cfg(target_arch = "aarch64")]
const OF_ARCH: &[i64] = &[c::SYS_kexec_file_load];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const OF_ARCH: &[i64] = &[];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

pub(crate) fn refuse(profile: &Profile, missing: &mut Vec<Missing>) -> Result<(), String> {
    let Some(arch) = ARCH else {
        missing.push(Missing::new("system calls", "not for this processor"));
        return Ok(());
    };
    let failed = |error: seccompiler::Error| format!("system calls: {error}");
    // Its flags are behind a pointer, where no filter sees them. Programs that hear of no such call use `clone`.
    let clone3 = Rules::from([(c::SYS_clone3, Vec::new())]);
    let refused = rules(profile).map_err(|error| format!("system calls: {error}"))?;
    for (rules, errno) in [(clone3, c::ENOSYS), (refused, c::EPERM)] {
        let errno = SeccompAction::Errno(errno.unsigned_abs());
        let filter = SeccompFilter::new(x32(rules), SeccompAction::Allow, errno, arch);
        let program: BpfProgram =
            filter.and_then(BpfProgram::try_from).map_err(|error| failed(error.into()))?;
        apply_filter(&program).map_err(failed)?;
    }
    Ok(())
}

fn rules(profile: &Profile) -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = REFUSED.iter().chain(OF_ARCH).map(|call| (*call, Vec::new())).collect();
    let new_namespaces = [
        c::CLONE_NEWNS,
        c::CLONE_NEWCGROUP,
        c::CLONE_NEWUTS,
        c::CLONE_NEWIPC,
        c::CLONE_NEWUSER,
        c::CLONE_NEWPID,
        c::CLONE_NEWNET,
    ];
    let clones = new_namespaces.map(|flag| {
        let flag = u64::from(flag.unsigned_abs());
        all(&[(0, SeccompCmpOp::MaskedEq(flag), flag)])
    });
    rules.insert(c::SYS_clone, clones.into_iter().collect::<Result<_, _>>()?);
    // Input that the terminal of whoever started the worker would take for typed.
    let typed = [c::TIOCSTI, c::TIOCLINUX].map(|request| all(&[(1, SeccompCmpOp::Eq, request)]));
    rules.insert(c::SYS_ioctl, typed.into_iter().collect::<Result<_, _>>()?);
    rules.insert(c::SYS_socket, sockets(profile.network.as_ref())?);
    if profile.strict {
        // Nothing leaves the group that is killed with the attempt.
        rules.extend([c::SYS_setsid, c::SYS_setpgid].map(|call| (call, Vec::new())));
    }
    Ok(rules)
}

/// The sockets that are refused: raw ones and rare families, and with a closed network all that no port is allowed for.
fn sockets(network: Option<&Network>) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    const KIND: u64 = 0xf;
    let [unix, inet, inet6, netlink] = [c::AF_UNIX, c::AF_INET, c::AF_INET6, c::AF_NETLINK].map(number);
    let [stream, datagram] = [c::SOCK_STREAM, c::SOCK_DGRAM].map(number);
    let [tcp, udp] = [c::IPPROTO_TCP, c::IPPROTO_UDP].map(number);
    let mut refused = vec![
        all(&[(0, Ne, unix), (0, Ne, inet), (0, Ne, inet6), (0, Ne, netlink)])?,
        all(&[(0, Eq, netlink), (2, Ne, number(c::NETLINK_ROUTE))])?,
    ];
    for family in [inet, inet6] {
        for kind in (0..=KIND).filter(|kind| *kind != stream && *kind != datagram) {
            refused.push(all(&[(0, Eq, family), (1, MaskedEq(KIND), kind)])?);
        }
        let Some(network) = network else { continue };
        let mut kind = |kind, allowed: bool, protocol| {
            let of_kind = [(0, Eq, family), (1, MaskedEq(KIND), kind)];
            // Landlock knows TCP only, not the protocols that are like it.
            let other = [(2, Ne, 0), (2, Ne, protocol)];
            let refusal = if allowed { [&of_kind[..], &other].concat() } else { of_kind.to_vec() };
            all(&refusal).map(|rule| refused.push(rule))
        };
        kind(stream, network.tcp(), tcp)?;
        kind(datagram, network.udp, udp)?;
    }
    if network.is_some_and(|network| !network.unix) {
        refused.push(all(&[(0, Eq, unix)])?);
    }
    Ok(refused)
}

fn number(constant: i32) -> u64 {
    u64::from(constant.unsigned_abs())
}

/// A rule that holds if all of these do: the number of an argument, how it compares, with what.
fn all(conditions: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, seccompiler::BackendError> {
    let conditions = conditions
        .iter()
        // The kernel looks at the lower half of these arguments only.
        .map(|(argument, how, with)| {
            SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, how.clone(), *with)
        })
        .collect::<Result<Vec<_>, _>>()?;
    SeccompRule::new(conditions)
}

/// x86-64 has each call once more, with a bit set, for programs with short pointers; a few have numbers of their own.
#[cfg(target_arch = "x86_64")]
fn x32(mut rules: Rules) -> Rules {
    const BIT: i64 = 0x4000_0000;
    /// Calls that programs with short pointers make by other numbers.
    const OWN: [(i64, i64); 5] = [
        (c::SYS_ioctl, 514),
        (c::SYS_ptrace, 521),
        (c::SYS_kexec_load, 528),
        (c::SYS_process_vm_readv, 539),
        (c::SYS_process_vm_writev, 540),
    ];
    let again: Vec<_> = rules.iter().map(|(call, of_call)| (*call, of_call.clone())).collect();
    for (call, of_call) in again {
        let number = OWN.iter().find(|(of, _)| *of == call).map_or(call, |(_, own)| *own);
        rules.insert(number | BIT, of_call);
    }
    rules
}

#[cfg(not(target_arch = "x86_64"))]
fn x32(rules: Rules) -> Rules {
    rules
}
