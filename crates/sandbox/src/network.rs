//! Which TCP ports, by Landlock. Other protocols are refused with their sockets, in `calls`.

use crate::{Missing, Network};
use landlock::{
    AccessNet, CompatLevel, Compatible, NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
};

pub(crate) fn restrict(network: &Network, missing: &mut Vec<Missing>) -> Result<(), String> {
    let handled = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessNet::ConnectTcp | AccessNet::BindTcp);
    let Ok(ruleset) = handled else {
        // Without any port the sockets themselves are refused, which needs no Landlock.
        if network.tcp() {
            missing.push(Missing::new("TCP ports", "needs Landlock of Linux 6.7"));
        }
        return Ok(());
    };
    let ports = |ports: &[u16], access: AccessNet| {
        ports.iter().map(|port| Ok::<_, RulesetError>(NetPort::new(*port, access))).collect::<Vec<_>>()
    };
    ruleset
        .create()
        .and_then(|rules| rules.add_rules(ports(&network.connect, AccessNet::ConnectTcp)))
        .and_then(|rules| rules.add_rules(ports(&network.bind, AccessNet::BindTcp)))
        .and_then(|rules| rules.restrict_self())
        .map_err(|error| format!("network: {error}"))?;
    Ok(())
}

impl Network {
    /// Whether any TCP is allowed.
    pub(crate) fn tcp(&self) -> bool {
        !(self.connect.is_empty() && self.bind.is_empty())
    }
}
