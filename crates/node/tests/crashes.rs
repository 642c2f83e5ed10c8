//! The power goes at every step of a random life; the next one finds exactly what the log says.
#![allow(clippy::unwrap_used, reason = "tests may")]

mod common;

use common::{Rig, done, push};
use kit::{Durability, Timestamp, random::Random};
use millpond_core::{Effects, Shard};
use model::{Command, DispatchedJob, Reply};
use node::{Batch, Committed, Recovered};

/// The state as the appended batches tell it, up to a position.
fn genesis(rig: &Rig, position: u64) -> Shard {
    let mut shard = Shard::new(0);
    let mut effects = Effects::default();
    for (_, payload) in rig.appended.lock().unwrap().iter() {
        let batch = Batch::decode(payload).unwrap();
        for (at, envelope) in (batch.first..).zip(&batch.envelopes) {
            if at > position {
                return shard;
            }
            let _ = shard.apply(at, batch.time, envelope, &mut effects);
        }
    }
    shard
}

struct Life {
    leased: Vec<DispatchedJob>,
    /// The newest position that was acknowledged at `disk`.
    safe: u64,
}

impl Life {
    fn hear(&mut self, committed: Committed<u64>) {
        for (_, answer) in committed.answers {
            let Ok(answer) = answer else { continue };
            if answer.durability >= Durability::Disk && answer.position > 0 {
                self.safe = self.safe.max(answer.position);
            }
            if let Reply::Fetched(jobs) = answer.reply {
                self.leased.extend(jobs);
            }
        }
    }
}

fn step(rig: &mut Rig, life: &mut Life, random: &mut Random) {
    rig.now = rig.now + random.below(400);
    for _ in 0..random.below(4) {
        let level = [Durability::Memory, Durability::Os, Durability::Disk][random.below(3) as usize];
        let name = ["a", "b", "c"][random.below(3) as usize];
        match random.below(5) {
            0 | 1 => drop(rig.offer(0, push(name, random.below(20) as usize + 1), level)),
            2 => {
                let number = random.next_u64();
                drop(rig.fetch(number, &[name, "b"], random.below(8) as u32 + 1, random.below(1_000)));
            }
            3 => {
                let half = life.leased.len() / 2;
                let jobs: Vec<_> = life.leased.drain(half..).collect();
                drop(rig.offer(0, done(&jobs), level));
            }
            _ => drop(rig.offer(0, Command::Pause { queue: common::queue("c") }, level)),
        }
    }
    drop(rig.driver.expire(rig.now));
    let (Some(mut first), second) = (rig.seal(), rig.seal()) else { return };
    rig.writer.write(&mut first);
    if random.chance(1, 2) {
        if let Some(mut second) = second {
            rig.writer.write(&mut second);
            let committed = rig.driver.commit(first);
            life.hear(committed);
            first = second;
        }
        let committed = rig.driver.commit(first);
        life.hear(committed);
    } else {
        let committed = rig.driver.commit(first);
        life.hear(committed);
        if let Some(second) = second {
            let committed = rig.write(second);
            life.hear(committed);
        }
    }
    if random.chance(1, 6)
        && let Some(snapshot) = rig.driver.snapshot()
        && let Ok(true) = rig.keeper.store(&snapshot, &rig.writer)
    {
        rig.driver.stored(snapshot.generation, snapshot.mark);
    }
}

#[test]
fn whatever_step_the_power_goes_at_the_recovered_state_is_the_logs_and_holds_all_that_was_acknowledged() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let mut rig = Rig::new();
        let mut life = Life { leased: Vec::new(), safe: 0 };
        for _crash in 0..6 {
            rig.files.cut_power_after(random.below(60) + 1);
            for _ in 0..200 {
                step(&mut rig, &mut life, &mut random);
                if rig.driver.poison().is_some() {
                    break;
                }
            }
            rig.files.crash(&mut random);
            rig.files.heal();
            let Recovered { driver, writer, keeper } =
                common::open(&rig.files, &rig.checkpoints, &rig.appended, &rig.options).unwrap();
            (rig.driver, rig.writer, rig.keeper) = (driver, writer, keeper);
            let position = rig.driver.shard().position();
            assert!(position >= life.safe, "seed {seed}: {position} reached, {} acknowledged", life.safe);
            assert_eq!(rig.driver.shard().state_hash(), genesis(&rig, position).state_hash(), "seed {seed}");
            rig.driver.shard().check().unwrap();
            rig.appended
                .lock()
                .unwrap()
                .retain(|(_, payload)| Batch::decode(payload).unwrap().first <= position);
            life.safe = position;
            life.leased.clear();
            rig.now = rig.now.max(Timestamp(rig.driver.shard().time().0));
        }
    }
}
