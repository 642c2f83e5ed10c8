use super::{
    job::JobDto,
    scalar::{Source, Text},
};
use crate::http::problem::Problem;
use compact_str::CompactString;
use model::{Graph, Ignore, MemberState, NamedJob, NewJoin, OnFailure, Policy, Rest, limits};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use std::{fmt, marker::PhantomData};

/// What the join of a graph is called that is written as `join`.
const ROOT: &str = "join";

/// Jobs and joins by name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GraphDto<'a> {
    #[serde(borrow, deserialize_with = "named")]
    jobs: Vec<(Text<'a>, JobDto<'a>)>,
    #[serde(borrow, default, deserialize_with = "named")]
    joins: Vec<(Text<'a>, JoinDto<'a>)>,
    #[serde(borrow)]
    join: Option<JoinDto<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JoinDto<'a> {
    #[serde(borrow)]
    members: Option<Vec<Text<'a>>>,
    #[serde(default)]
    policy: PolicyDto,
    k: Option<u32>,
    #[serde(borrow)]
    then: Option<Text<'a>>,
    #[serde(default)]
    on_failure: OnFailureDto,
    #[serde(default)]
    rest: RestDto,
    #[serde(borrow, default)]
    ignore: Vec<Text<'a>>,
    #[serde(default)]
    open: bool,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PolicyDto {
    #[default]
    All,
    AllSettled,
    Any,
    Race,
    KOfN,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnFailureDto {
    #[default]
    Fail,
    Cancel,
    Run,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RestDto {
    #[default]
    Cancel,
    Run,
}

/// Members to be added to an open join.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExtendDto<'a> {
    #[serde(borrow, default, deserialize_with = "named")]
    jobs: Vec<(Text<'a>, JobDto<'a>)>,
    #[serde(default)]
    pub(crate) seal: bool,
}

/// An object whose keys are names of ours, in its order. A name there twice is refused by the engine.
fn named<'de, D: Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<Vec<(Text<'de>, T)>, D::Error> {
    struct Named<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Named<T> {
        type Value = Vec<(Text<'de>, T)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object by name")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut out = Vec::new();
            while let Some(name) = map.next_key::<Text<'de>>()? {
                if out.len() == limits::GRAPH_NODES_MAX {
                    let most = limits::GRAPH_NODES_MAX;
                    return Err(A::Error::custom(format_args!("at most {most} entries are allowed")));
                }
                out.push((name, map.next_value()?));
            }
            Ok(out)
        }
    }
    input.deserialize_map(Named(PhantomData))
}

impl GraphDto<'_> {
    /// The graph. `join` comes last, and without members it takes all that nobody else waits for; without any join there is that
    /// one. With `root` there is always one, since somebody waits for it.
    pub(crate) fn into_graph(self, source: Source<'_>, root: bool) -> Result<Graph, Problem> {
        let mut graph = Graph { jobs: named_jobs(self.jobs, source)?, joins: Vec::new() };
        for (name, join) in self.joins {
            let place = format!("joins.{}", &*name);
            let join = join.into_join(&name).map_err(|problem| problem.inside(&place))?;
            if join.members.is_empty() && !join.open {
                return Err(Problem::invalid("members", "are missing").inside(&place));
            }
            graph.joins.push(join);
        }
        if root || self.join.is_some() || graph.joins.is_empty() {
            let given = self.join.unwrap_or_default();
            let mine = given.members.is_none() && !given.open;
            let mut join = given.into_join(ROOT).map_err(|problem| problem.inside(ROOT))?;
            if mine {
                join.members = graph.not_awaited(join.then.as_ref());
            }
            graph.joins.push(join);
        }
        Ok(graph)
    }
}

fn named_jobs(jobs: Vec<(Text<'_>, JobDto<'_>)>, source: Source<'_>) -> Result<Vec<NamedJob>, Problem> {
    let mut out = Vec::with_capacity(jobs.len());
    for (name, job) in jobs {
        let job =
            job.into_job(source, None).map_err(|problem| problem.inside(&format!("jobs.{}", &*name)))?;
        out.push(NamedJob { name: CompactString::from(&*name), job });
    }
    Ok(out)
}

impl ExtendDto<'_> {
    pub(crate) fn into_jobs(self, source: Source<'_>) -> Result<Vec<NamedJob>, Problem> {
        named_jobs(self.jobs, source)
    }
}

impl JoinDto<'_> {
    fn into_join(self, name: &str) -> Result<NewJoin, Problem> {
        let policy = match (self.policy, self.k) {
            (PolicyDto::KOfN, Some(needed)) => Policy::KOfN(needed),
            (PolicyDto::KOfN, None) => {
                return Err(Problem::invalid("k", "is missing: how many must complete?"));
            }
            (_, Some(_)) => return Err(Problem::invalid("k", "belongs to the policy k_of_n")),
            (PolicyDto::All, None) => Policy::All,
            (PolicyDto::AllSettled, None) => Policy::AllSettled,
            (PolicyDto::Any, None) => Policy::Any,
            (PolicyDto::Race, None) => Policy::Race,
        };
        let mut ignored = Vec::with_capacity(self.ignore.len());
        for word in &self.ignore {
            ignored.push(match word.parse() {
                Ok(MemberState::Pending | MemberState::Completed) | Err(_) => {
                    return Err(Problem::invalid("ignore", "takes failed, cancelled, expired, removed"));
                }
                Ok(state) => state,
            });
        }
        Ok(NewJoin {
            name: CompactString::from(name),
            members: self.members.iter().flatten().map(|member| CompactString::from(&**member)).collect(),
            policy,
            then: self.then.as_deref().map(CompactString::from),
            on_failure: match self.on_failure {
                OnFailureDto::Fail => OnFailure::Fail,
                OnFailureDto::Cancel => OnFailure::Cancel,
                OnFailureDto::Run => OnFailure::Run,
            },
            rest: match self.rest {
                RestDto::Cancel => Rest::Cancel,
                RestDto::Run => Rest::Run,
            },
            ignore: Ignore::of(&ignored),
            open: self.open,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::json;
    use bytes::Bytes;

    fn read(text: &str, root: bool) -> Result<Graph, Problem> {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        json::parse::<GraphDto<'_>>(&bytes)?.into_graph(Source(&bytes), root)
    }

    #[test]
    fn a_join_without_members_takes_what_nobody_else_waits_for() {
        let jobs =
            r#""jobs":{"a":{"queue":"q","body":1},"b":{"queue":"q","body":2},"c":{"queue":"q","body":3}}"#;
        let members = |text: String, root| {
            let graph = read(&text, root).unwrap();
            graph.joins.into_iter().map(|join| join.members.join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(members(format!("{{{jobs}}}"), false), ["a b c"]);
        assert_eq!(members(format!(r#"{{{jobs},"join":{{"then":"c"}}}}"#), false), ["a b"]);
        let inner = r#""joins":{"in":{"members":["a"],"then":"b"}}"#;
        assert_eq!(members(format!("{{{jobs},{inner}}}"), false), ["a"]);
        assert_eq!(members(format!("{{{jobs},{inner}}}"), true), ["a", "b c"]);
        let inner = r#""joins":{"in":{"members":["a","b"],"policy":"any"}}"#;
        assert_eq!(members(format!("{{{jobs},{inner}}}"), true), ["a b", "c in"]);
    }

    #[test]
    fn what_does_not_fit_is_named_with_its_place() {
        for (text, place) in [
            (r#"{"jobs":{"a":{"queue":"q"}}}"#, "jobs.a.body: "),
            (r#"{"jobs":{},"joins":{"j":{"members":["a"],"policy":"k_of_n"}}}"#, "joins.j.k: "),
            (r#"{"jobs":{},"joins":{"j":{}}}"#, "joins.j.members: "),
            (r#"{"jobs":{},"join":{"ignore":["completed"]}}"#, "join.ignore: "),
            (
                r#"{"jobs":{},"join":{"polcy":"all"}}"#,
                "unknown field `polcy` in join: did you mean `policy`?",
            ),
        ] {
            let problem = read(text, false).unwrap_err();
            assert!(problem.detail().starts_with(place), "{}", problem.detail());
        }
    }
}
