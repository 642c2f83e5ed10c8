//! The join that a job waited for, from the server's words into the runtime's.

use crate::client::{JoinAnswer, MemberAnswer, Time};
use bytes::Bytes;
use kit::Timestamp;
use model::{
    Ignore, JobId, JoinState, JoinView, MemberOf, MemberState, MemberView, OnFailure, Policy, QueueName, Rest,
};

/// The error says what is not understood; a server that is newer than this program may say more than it knows.
pub(super) fn join(told: JoinAnswer) -> Result<JoinView, String> {
    let mut counts = [0; MemberState::COUNT];
    for (state, count) in &told.counts {
        counts[state.parse::<MemberState>().map_err(text)? as usize] =
            u32::try_from(*count).unwrap_or(u32::MAX);
    }
    let ignored: Result<Vec<MemberState>, _> = told.ignore.iter().map(|state| state.parse()).collect();
    let time = |time: Option<Time>| time.map(|time| time.0);
    Ok(JoinView {
        id: JobId::parse(&told.id).map_err(text)?,
        name: told.name.into(),
        state: named(&JoinState::ALL, |state| state.name(), &told.state)?,
        policy: match told.k {
            Some(needed) => Policy::KOfN(needed),
            None => named(
                &[Policy::All, Policy::AllSettled, Policy::Any, Policy::Race],
                |one| one.name(),
                &told.policy,
            )?,
        },
        on_failure: named(&OnFailure::ALL, |one| one.name(), &told.on_failure)?,
        rest: named(&Rest::ALL, |one| one.name(), &told.rest)?,
        ignore: Ignore::of(&ignored.map_err(text)?),
        sealed: told.sealed,
        created_at: time(told.created_at).unwrap_or(Timestamp::ZERO),
        ended_at: time(told.ended_at),
        then: match told.then {
            Some(job) => {
                Some((QueueName::new(&job.queue).map_err(text)?, JobId::parse(&job.id).map_err(text)?))
            }
            None => None,
        },
        counts,
        members: told.members.into_iter().map(member).collect::<Result<_, _>>()?,
        next: told.cursor.and_then(|cursor| cursor.as_u64()).and_then(|cursor| u32::try_from(cursor).ok()),
    })
}

fn member(told: MemberAnswer) -> Result<MemberView, String> {
    let what = match (told.join, told.queue, told.id) {
        (Some(nested), ..) => MemberOf::Join(Box::new(join(nested)?)),
        (None, Some(queue), Some(id)) => {
            MemberOf::Job(QueueName::new(&queue).map_err(text)?, JobId::parse(&id).map_err(text)?)
        }
        (None, ..) => MemberOf::Gone,
    };
    let result = told.result.map(|raw| Bytes::from(String::from(Box::<str>::from(raw))));
    Ok(MemberView {
        name: told.name.into(),
        state: told.state.parse().map_err(text)?,
        what,
        result_bytes: told.result_bytes.unwrap_or(0),
        result,
        error: told.error.map(|error| workers::error(&error.kind, &error.message, &error.stack)),
    })
}

fn named<T: Copy>(all: &[T], name: fn(&T) -> &'static str, text: &str) -> Result<T, String> {
    all.iter()
        .find(|one| name(one) == text)
        .copied()
        .ok_or_else(|| format!("a join has the unknown word {text}"))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_arrives_as_the_server_wrote_it() {
        let json = r#"{"id":"j","name":"top","state":"failed","policy":"k_of_n","k":2,"on_failure":"run","rest":"run",
            "ignore":["expired"],"sealed":true,"created_at":5,"ended_at":9,"then":{"queue":"q","id":"next"},"total":3,
            "counts":{"pending":0,"completed":1,"failed":1,"cancelled":0,"expired":0,"removed":1},"members":[
            {"name":"a","state":"completed","queue":"q","id":"a","result":1.50,"result_bytes":4},
            {"name":"in","state":"failed","join":{"id":"k","state":"failed","policy":"all","on_failure":"fail","rest":"cancel",
             "members":[{"name":"b","state":"failed","queue":"q","id":"b","error":{"kind":"K","message":"no"}}]}},
            {"name":"c","state":"removed"}],"cursor":7}"#;
        let view = join(serde_json::from_str(json).unwrap()).unwrap();
        assert_eq!((view.state, view.policy, view.next), (JoinState::Failed, Policy::KOfN(2), Some(7)));
        assert_eq!((view.on_failure, view.rest, view.total()), (OnFailure::Run, Rest::Run, 3));
        assert_eq!((view.ignore, view.ended_at), (Ignore::of(&[MemberState::Expired]), Some(Timestamp(9))));
        assert_eq!(view.then, Some((QueueName::new("q").unwrap(), JobId::Text("next".into()))));
        let [a, inner, c] = &view.members[..] else { panic!("{view:?}") };
        assert_eq!((a.result.as_deref(), a.result_bytes), (Some(&b"1.50"[..]), 4));
        let MemberOf::Join(nested) = &inner.what else { panic!("{inner:?}") };
        assert_eq!(nested.members[0].error.as_ref().map(|error| error.message.as_str()), Some("no"));
        assert_eq!((&c.what, c.state), (&MemberOf::Gone, MemberState::Removed));
        for (word, other) in [
            ("k_of_n\",\"k\":2", "most\""),
            ("run\",\"rest", "ask\",\"rest"),
            ("top\",\"state\":\"failed", "top\",\"state\":\"odd"),
        ] {
            let odd = json.replacen(word, other, 1);
            assert!(join(serde_json::from_str(&odd).unwrap()).is_err(), "{odd}");
        }
    }
}
