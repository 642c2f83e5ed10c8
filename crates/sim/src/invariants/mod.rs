//! The rules, one file each. A check takes what was recorded and says what is broken; it changes nothing.
//!
//! | rule | file | in one line |
//! |---|---|---|
//! | I1 | `acked` | what was acknowledged survives what its level covers |
//! | I2 | `phantom` | nothing happens that nobody asked for, nothing twice, nothing after its end |
//! | I3 | `order` | the log has no gaps and an index keeps its content; jobs start by priority |
//! | I4 | `replay` | the state is what a replay from genesis gives, and so is every answer |
//! | I5 | `leases` | one live lease per job, tokens and attempts rise, a stale token is refused, one final state |
//! | I7 | `fail_stop` | nobody hears OK after a storage error |
//! | I9 | `drain` | once healed, everything reaches its end |
//! | I10 | `damage` | a flipped bit is found or harmless, never served |
//! | I11 | `early` | nothing starts before its time |
//! | I12 | `unique` | a unique key has one job that runs and one that stands by, a throttled one has none for its span |
//! | I13 | `bulk` | an operation changes what its filter means and nothing else, counts right, and ends |
//! | I14 | `steps` | a step keeps its value, a signal is delivered once, a suspended job wakes when what it waits for has come |
//! | I15 | `dead` | every death is counted in one class of errors; a dead letter that is sent on is not lost |
//! | I16 | `flow` | limits hold, an ordering key has one job under way, a paused group rests, what is said to be next is |
//! | I17 | `joins` | a continuation starts once and when its join says, losers do not go on, every join ends |
//! | I18 | `slots` | a slot fires once, never early, and none is missed beyond its schedule's rules |
//! | I19 | `fair` | groups that wait share a queue by their weights |
//! | I20 | `producers` | a push waits only while its queue is full |
//! | I21 | `poison` | crashes are counted apart from attempts, through restarts, up to quarantine |
//! | I22 | `alert` | an alert of dead letters is told when its threshold is reached, once |
//! | I23 | `patch` | a body is changed only while no worker has the job, and only if it is the one that was looked at |

pub(crate) mod acked;
pub(crate) mod alert;
pub(crate) mod bulk;
pub(crate) mod damage;
pub(crate) mod dead;
pub(crate) mod drain;
pub(crate) mod early;
pub(crate) mod fail_stop;
pub(crate) mod fair;
pub(crate) mod flow;
pub(crate) mod joins;
pub(crate) mod leases;
pub(crate) mod order;
pub(crate) mod patch;
pub(crate) mod phantom;
pub(crate) mod poison;
pub(crate) mod producers;
pub(crate) mod replay;
pub(crate) mod slots;
pub(crate) mod steps;
pub(crate) mod unique;
