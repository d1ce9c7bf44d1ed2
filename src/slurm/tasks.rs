//! Slurm's compressed counts, `2(x3),1`: how many tasks (or CPUs) each node has.

use crate::excerpt::quoted;

/// Most tasks of a whole list: more than any cluster starts.
const TASKS_LIMIT: usize = 1 << 20;
/// Most nodes.
const NODES_LIMIT: usize = 256 * 1024;

/// A list of counts that does not follow Slurm's form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is no list of counts like 2(x3),1, with at most {TASKS_LIMIT} tasks in all", quoted(.text))]
pub struct CountsError {
    pub text: String,
}

/// One count per node, in node order: `2(x3),1` is 2, 2, 2, 1.
pub fn expand(text: &str) -> Result<Vec<usize>, CountsError> {
    let fail = || CountsError { text: text.to_owned() };
    let mut counts = Vec::new();
    let mut tasks = 0_usize;
    for item in text.split(',') {
        let (count, times) = match item.split_once("(x") {
            Some((count, rest)) => (count, rest.strip_suffix(')').ok_or_else(fail)?),
            None => (item, "1"),
        };
        let digits = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| text.parse::<usize>().ok())
                .flatten()
        };
        let (count, times) = (digits(count).ok_or_else(fail)?, digits(times).ok_or_else(fail)?);
        tasks = tasks.saturating_add(count.saturating_mul(times));
        if times == 0 || times > NODES_LIMIT - counts.len() || tasks > TASKS_LIMIT {
            return Err(fail());
        }
        counts.extend(std::iter::repeat_n(count, times));
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn repeats_expand() {
        assert_eq!(expand("2(x3),1"), Ok(vec![2, 2, 2, 1]));
        assert_eq!(expand("4"), Ok(vec![4]));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "a",
            "2(x",
            "2(x3",
            "2(3)",
            "-1",
            "2,",
            "2(x0)",
            "1(x99999999999)",
            "1(x18446744073709551615)",
            "18446744073709551615,1",
            "18446744073709551615",
            "1048577",
            "524288(x3)",
            "1(x262144),1",
            "+2",
        ] {
            assert!(expand(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn repeats_are_their_counts(runs in prop::collection::vec((0_usize..20, 1_usize..5), 1..20)) {
            let text: Vec<String> = runs.iter().map(|(count, times)| format!("{count}(x{times})")).collect();
            let counts: Vec<usize> = runs.iter().flat_map(|&(count, times)| std::iter::repeat_n(count, times)).collect();
            prop_assert_eq!(expand(&text.join(",")), Ok(counts));
        }
    }
}
