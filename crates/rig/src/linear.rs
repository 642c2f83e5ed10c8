//! Whether a history of calls could have come from one thing that does one call at a time.
//!
//! The search is that of Wing and Gong ("Testing and verifying concurrent objects", 1993) with Lowe's memory of what was tried ("Testing for
//! linearizability", 2017). A call whose outcome nobody knows may have happened at any moment after it began, or never.

use std::{collections::HashSet, hash::Hash};

/// What calls mean, one at a time.
pub trait Model {
    /// What is between two calls.
    type State: Clone + Eq + Hash;
    /// A call together with its answer, if there was one.
    type Op;

    /// What may be after the call, if it got this answer; nothing if it cannot have got it.
    fn next(state: &Self::State, op: &Self::Op) -> Vec<Self::State>;
}

/// A call and when it was under way, by a clock that all callers share and that never stands still.
#[derive(Debug, Clone)]
pub struct Span<Op> {
    /// What was called, and answered.
    pub op: Op,
    /// Before the call was sent.
    pub began: u64,
    /// After the answer came; `None` if none came, and so the call may still happen.
    pub ended: Option<u64>,
}

/// What a history amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order.
    Linearizable,
    /// There is none. The longest that was found, as places in the history.
    Broken(Vec<usize>),
    /// Not found within the steps that were allowed.
    Undecided,
}

/// Looks for an order of the calls that explains every answer: each call takes effect between its beginning and its end.
///
/// Tries at most `steps_max` states; each takes some hundred bytes.
pub fn linearizable<M: Model>(start: M::State, history: &[Span<M::Op>], steps_max: usize) -> Verdict {
    let answered = history.iter().filter(|span| span.ended.is_some()).count();
    let mut tried = HashSet::new();
    let mut longest = Vec::new();
    let mut open = vec![(start, Vec::new())];
    while let Some((state, order)) = open.pop() {
        let done: HashSet<usize> = order.iter().copied().collect();
        let known = |at: &usize| history[*at].ended.is_some();
        if order.iter().filter(|at| known(at)).count() == answered {
            return Verdict::Linearizable;
        }
        let mut set: Vec<usize> = order.clone();
        set.sort_unstable();
        if !tried.insert((set, state.clone())) {
            continue;
        }
        if tried.len() > steps_max {
            return Verdict::Undecided;
        }
        // Whoever had an answer before a call began is before it.
        let left = || history.iter().enumerate().filter(|(at, _)| !done.contains(at));
        let horizon = left().filter_map(|(_, span)| span.ended).min().unwrap_or(u64::MAX);
        let mut candidates: Vec<_> = left().filter(|(_, span)| span.began < horizon).collect();
        // What ended first is tried first, what may never have happened last: the newest on the stack is the next.
        candidates.sort_by_key(|(_, span)| std::cmp::Reverse(span.ended.unwrap_or(u64::MAX)));
        for (at, span) in candidates {
            for next in M::next(&state, &span.op) {
                let order: Vec<usize> = order.iter().copied().chain([at]).collect();
                open.push((next, order));
            }
        }
        if order.len() > longest.len() {
            longest = order;
        }
    }
    Verdict::Broken(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register that is written and read.
    struct Register;

    #[derive(Debug, Clone, Copy)]
    enum Op {
        Write(u8),
        Read(u8),
    }

    impl Model for Register {
        type State = u8;
        type Op = Op;

        fn next(state: &u8, op: &Op) -> Vec<u8> {
            match *op {
                Op::Write(value) => vec![value],
                Op::Read(value) if value == *state => vec![value],
                Op::Read(_) => Vec::new(),
            }
        }
    }

    fn verdict(history: &[(Op, u64, Option<u64>)]) -> Verdict {
        let spans: Vec<_> =
            history.iter().map(|(op, began, ended)| Span { op: *op, began: *began, ended: *ended }).collect();
        linearizable::<Register>(0, &spans, 10_000)
    }

    #[test]
    fn calls_under_way_together_may_be_in_any_order() {
        use Op::*;
        assert_eq!(verdict(&[(Write(1), 1, Some(4)), (Read(0), 2, Some(3))]), Verdict::Linearizable);
        assert_eq!(verdict(&[(Write(1), 1, Some(4)), (Read(1), 2, Some(3))]), Verdict::Linearizable);
    }

    #[test]
    fn what_ended_before_another_began_is_before_it() {
        use Op::*;
        assert_eq!(verdict(&[(Write(1), 1, Some(2)), (Read(0), 3, Some(4))]), Verdict::Broken(vec![0]));
        let back = [(Write(1), 1, Some(9)), (Read(1), 2, Some(3)), (Read(0), 4, Some(5))];
        assert!(matches!(verdict(&back), Verdict::Broken(_)), "what was seen is not taken back");
    }

    #[test]
    fn a_call_of_unknown_outcome_happens_late_or_never_but_not_twice() {
        use Op::*;
        let lost = (Write(1), 1, None);
        assert_eq!(verdict(&[lost, (Read(0), 3, Some(4))]), Verdict::Linearizable);
        assert_eq!(verdict(&[lost, (Read(0), 3, Some(4)), (Read(1), 5, Some(6))]), Verdict::Linearizable);
        let twice = [lost, (Read(1), 3, Some(4)), (Write(2), 5, Some(6)), (Read(1), 7, Some(8))];
        assert!(matches!(verdict(&twice), Verdict::Broken(_)));
        assert!(
            matches!(verdict(&[(Read(1), 0, Some(1)), lost]), Verdict::Broken(_)),
            "not before it was asked"
        );
    }

    #[test]
    fn a_search_that_takes_too_long_says_so() {
        let writes: Vec<_> = (0..12).map(|at| (Op::Write(at), 0, Some(100))).collect();
        let spans: Vec<_> = [&writes[..], &[(Op::Read(99), 101, Some(102))]].concat();
        let spans: Vec<_> =
            spans.iter().map(|(op, began, ended)| Span { op: *op, began: *began, ended: *ended }).collect();
        assert_eq!(linearizable::<Register>(0, &spans, 100), Verdict::Undecided);
    }
}
