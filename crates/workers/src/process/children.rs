//! Joins in the lines between a worker and its programs: the one that a job waited for, and those that it is to wait for.

use super::protocol::{ChildJob, one_line};
use compact_str::CompactString;
use model::{
    Graph, Ignore, JoinState, JoinView, MemberOf, MemberState, MemberView, NamedJob, NewJoin, OnFailure,
    Policy, Rest, limits,
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt, marker::PhantomData};

/// What the join is called that a job waits for.
const ROOT: &str = "join";

/// A join whose end a job waited for, as in the answer to a fetch, without what only its maker needs.
#[derive(Serialize)]
pub(super) struct JoinFrame<'a> {
    id: String,
    name: &'a str,
    state: &'static str,
    total: u32,
    members: Vec<MemberFrame<'a>>,
}

#[derive(Serialize)]
struct MemberFrame<'a> {
    name: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    join: Option<Box<JoinFrame<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
    /// Of a result that was too large to be handed over.
    #[serde(skip_serializing_if = "Option::is_none")]
    result_bytes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorFrame<'a>>,
}

#[derive(Serialize)]
struct ErrorFrame<'a> {
    kind: &'a str,
    message: &'a str,
}

impl<'a> From<&'a JoinView> for JoinFrame<'a> {
    fn from(join: &'a JoinView) -> Self {
        Self {
            id: join.id.to_string(),
            name: &join.name,
            state: JoinState::name(join.state),
            total: join.total(),
            members: join.members.iter().map(MemberFrame::from).collect(),
        }
    }
}

impl<'a> From<&'a MemberView> for MemberFrame<'a> {
    fn from(member: &'a MemberView) -> Self {
        let (queue, id, join) = match &member.what {
            MemberOf::Job(queue, id) => (Some(queue.as_str()), Some(id.to_string()), None),
            MemberOf::Join(join) => (None, None, Some(Box::new((&**join).into()))),
            MemberOf::Gone => (None, None, None),
        };
        let result = member.result.as_deref().and_then(one_line);
        let left_out = result.is_none() && member.result_bytes > 0;
        Self {
            name: &member.name,
            state: MemberState::name(member.state),
            queue,
            id,
            join,
            result,
            result_bytes: left_out.then_some(member.result_bytes),
            error: member
                .error
                .as_ref()
                .map(|error| ErrorFrame { kind: &error.kind, message: &error.message }),
        }
    }
}

/// A join as one JSON object; nothing if the job waited for none.
pub(super) fn children_json(join: Option<&JoinView>) -> String {
    // Text, numbers and checked JSON always serialise.
    join.map_or_else(String::new, |join| serde_json::to_string(&JoinFrame::from(join)).unwrap_or_default())
}

/// Jobs and joins by name, of which `join` is what the job waits for: the graph of `POST /v1/joins`, whose jobs have a queue, an id and a
/// body.
#[derive(Deserialize)]
pub(super) struct GraphFrame<'a> {
    #[serde(borrow, deserialize_with = "named")]
    jobs: Vec<(Cow<'a, str>, ChildJob<'a>)>,
    #[serde(borrow, default, deserialize_with = "named")]
    joins: Vec<(Cow<'a, str>, JoinSpec)>,
    join: Option<JoinSpec>,
}

#[derive(Deserialize, Default)]
struct JoinSpec {
    members: Option<Vec<String>>,
    policy: Option<String>,
    k: Option<u32>,
    then: Option<String>,
    on_failure: Option<String>,
    rest: Option<String>,
    #[serde(default)]
    ignore: Vec<String>,
}

impl GraphFrame<'_> {
    /// The graph; its last join is the one to wait for. The error says what is wrong.
    pub(super) fn graph(self) -> Result<Graph, String> {
        let mut graph = Graph::default();
        for (name, job) in self.jobs {
            let job = job.job().map_err(|why| format!("children.jobs.{name}: {why}"))?;
            graph.jobs.push(NamedJob { name: CompactString::from(&*name), job });
        }
        for (name, join) in self.joins {
            let join = join.join(&name).map_err(|why| format!("children.joins.{name}: {why}"))?;
            graph.joins.push(join);
        }
        let given = self.join.unwrap_or_default();
        let all = given.members.is_none();
        let mut join = given.join(ROOT).map_err(|why| format!("children.join: {why}"))?;
        if all {
            join.members = graph.not_awaited(join.then.as_ref());
        }
        graph.joins.push(join);
        Ok(graph)
    }
}

impl JoinSpec {
    fn join(self, name: &str) -> Result<NewJoin, String> {
        let policy = match (self.policy.as_deref().unwrap_or("all"), self.k) {
            ("k_of_n", Some(needed)) => Policy::KOfN(needed),
            ("k_of_n", None) => return Err("k_of_n needs k: how many must complete?".to_owned()),
            (_, Some(_)) => return Err("k belongs to the policy k_of_n".to_owned()),
            ("all", None) => Policy::All,
            ("all_settled", None) => Policy::AllSettled,
            ("any", None) => Policy::Any,
            ("race", None) => Policy::Race,
            (other, None) => {
                return Err(format!("policy {other:?} is none of all, all_settled, any, race, k_of_n"));
            }
        };
        let chosen = |text: Option<String>, all: &[&'static str]| match text {
            None => Ok(0),
            Some(text) => all
                .iter()
                .position(|one| *one == text)
                .ok_or(format!("{text:?} is none of {}", all.join(", "))),
        };
        let on_failure = chosen(self.on_failure, &OnFailure::ALL.map(OnFailure::name))?;
        let rest = chosen(self.rest, &Rest::ALL.map(Rest::name))?;
        let ignored: Result<Vec<MemberState>, _> = self.ignore.iter().map(|state| state.parse()).collect();
        Ok(NewJoin {
            name: name.into(),
            members: self.members.into_iter().flatten().map(Into::into).collect(),
            policy,
            then: self.then.map(Into::into),
            on_failure: OnFailure::ALL[on_failure],
            rest: Rest::ALL[rest],
            ignore: Ignore::of(&ignored.map_err(|why| why.to_string())?),
            open: false,
        })
    }
}

/// An object in its order. A name that is there twice is refused by the engine.
fn named<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    input: D,
) -> Result<Vec<(Cow<'de, str>, T)>, D::Error> {
    struct Named<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Named<T> {
        type Value = Vec<(Cow<'de, str>, T)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object by name")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut out = Vec::new();
            while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                if out.len() == limits::GRAPH_NODES_MAX {
                    return Err(A::Error::custom("the graph has too many names"));
                }
                out.push((name, map.next_value()?));
            }
            Ok(out)
        }
    }
    input.deserialize_map(Named(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Graph, String> {
        serde_json::from_str::<GraphFrame<'_>>(text).map_err(|error| error.to_string())?.graph()
    }

    #[test]
    fn a_graph_keeps_its_order_and_waits_for_what_nobody_else_does() {
        let graph = read(
            r#"{"jobs":{"z":{"queue":"q","body":[1]},"a":{"queue":"q","id":"a"},"c":{"queue":"q"}},
            "joins":{"first":{"members":["z","a"],"policy":"k_of_n","k":1,"ignore":["expired"],"rest":"run"}},
            "join":{"on_failure":"run","policy":"all_settled"}}"#,
        )
        .unwrap();
        let names: Vec<_> = graph.jobs.iter().map(|named| named.name.as_str()).collect();
        assert_eq!((names, &graph.jobs[0].job.body[..]), (vec!["z", "a", "c"], &b"[1]"[..]));
        let [first, root] = &graph.joins[..] else { panic!("{graph:?}") };
        assert_eq!((first.policy, first.rest), (Policy::KOfN(1), Rest::Run));
        assert_eq!(first.ignore, Ignore::of(&[MemberState::Expired]));
        assert_eq!((root.policy, root.on_failure, &*root.name), (Policy::AllSettled, OnFailure::Run, ROOT));
        assert_eq!(root.members, ["c", "first"]);
    }

    #[test]
    fn what_is_wrong_with_a_graph_is_said_with_its_place() {
        for (text, part) in [
            (r#"{"jobs":{"a":{"queue":" "}}}"#, "children.jobs.a: "),
            (
                r#"{"jobs":{},"joins":{"j":{"policy":"most"}}}"#,
                "children.joins.j: policy \"most\" is none of all",
            ),
            (r#"{"jobs":{},"join":{"policy":"k_of_n"}}"#, "children.join: k_of_n needs k"),
            (r#"{"jobs":{},"join":{"k":2}}"#, "k belongs to"),
            (r#"{"jobs":{},"join":{"on_failure":"ask"}}"#, "\"ask\" is none of fail, cancel, run"),
            (r#"{"jobs":{},"join":{"ignore":["late"]}}"#, "a member's state"),
            (r#"{"join":{}}"#, "missing field `jobs`"),
        ] {
            let why = read(text).unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
        }
    }
}
