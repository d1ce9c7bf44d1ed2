//! Do all ranks mean the same? Asked once before the first step: a rank with an older config or
//! another libtorch would otherwise train something else until a shape does not fit, or until
//! nobody understands the result.
//!
//! Hashes travel first: only ranks that differ send what they have, however many ranks there are.

use sha2::{Digest, Sha256};

use super::lifeline::name;
use super::{DistError, Group};

impl Group {
    /// Compares `facts` (what they are called, and this rank's value) over all ranks. Every rank
    /// gets the same error, which names the ranks that differ from rank 0 and both values.
    pub fn agree(&self, facts: &[(&str, String)]) -> Result<(), DistError> {
        if self.world() == 1 {
            return Ok(());
        }
        let mine: Vec<(&str, &str)> =
            facts.iter().map(|(what, value)| (*what, value.as_str())).collect();
        let text = serde_json::to_string(&mine).unwrap_or_default();
        let hash = Sha256::digest(text.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        if self.all_gather_text(&hash)?.iter().all(|it| *it == hash) {
            return Ok(());
        }
        let all: Vec<Vec<(String, String)>> = self
            .all_gather_text(&text)?
            .iter()
            .map(|it| serde_json::from_str(it).unwrap_or_default())
            .collect();
        match differences(&all, &|rank| name(rank, Some(self.host(rank)))) {
            Some(text) => Err(DistError::Disagreement(text)),
            None => Ok(()),
        }
    }
}

fn differences(all: &[Vec<(String, String)>], who: &dyn Fn(usize) -> String) -> Option<String> {
    let (reference, others) = all.split_first()?;
    let mut lines = Vec::new();
    for (place, (what, value)) in reference.iter().enumerate() {
        let theirs = |facts: &Vec<(String, String)>| {
            facts.get(place).map_or_else(String::new, |it| it.1.clone())
        };
        let mut differing: Vec<(String, Vec<usize>)> = Vec::new();
        for (rank, facts) in others.iter().enumerate().filter(|(_, facts)| theirs(facts) != *value)
        {
            let theirs = theirs(facts);
            match differing.iter_mut().find(|(seen, _)| *seen == theirs) {
                Some((_, ranks)) => ranks.push(rank + 1),
                None => differing.push((theirs, vec![rank + 1])),
            }
        }
        for (theirs, ranks) in differing {
            let shown: Vec<String> = ranks.iter().take(4).map(|&rank| who(rank)).collect();
            let more = ranks.len().saturating_sub(4);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            let (value, theirs) = apart(value, &theirs);
            lines.push(format!(
                "  {what}: {} has {value}, {}{more} has {theirs}",
                who(0),
                shown.join(", ")
            ));
        }
    }
    (!lines.is_empty()).then(|| {
        format!(
            "the ranks disagree; start all of them with the same program and config:\n{}",
            lines.join("\n")
        )
    })
}

/// Two long values, cut down to the first lines in which they differ.
fn apart(left: &str, right: &str) -> (String, String) {
    let pair = left.lines().zip(right.lines()).find(|(a, b)| a != b);
    let extra = || {
        let n = left.lines().count().min(right.lines().count());
        let line = |text: &str| text.lines().nth(n).unwrap_or("nothing more").to_owned();
        (line(left), line(right))
    };
    let (left, right) = pair.map_or_else(extra, |(a, b)| (a.to_owned(), b.to_owned()));
    (format!("{:?}", left.trim()), format!("{:?}", right.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(config: &str, torch: &str) -> Vec<(String, String)> {
        vec![("config".into(), config.into()), ("libtorch".into(), torch.into())]
    }

    fn told(all: &[Vec<(String, String)>]) -> Option<String> {
        differences(all, &|rank| format!("rank {rank}"))
    }

    #[test]
    fn equal_facts_are_no_news() {
        assert_eq!(told(&[facts("a\nb", "2.11"), facts("a\nb", "2.11")]), None);
    }

    #[test]
    fn the_differing_ranks_and_the_first_differing_line_are_named() {
        let text = told(&[
            facts("lr: 1\ncrop: 2", "2.11"),
            facts("lr: 1\ncrop: 3", "2.11"),
            facts("lr: 1\ncrop: 3", "2.9"),
        ]);
        let text = text.expect("they differ");
        assert!(
            text.contains("config: rank 0 has \"crop: 2\", rank 1, rank 2 has \"crop: 3\""),
            "{text}"
        );
        assert!(text.contains("libtorch: rank 0 has \"2.11\", rank 2 has \"2.9\""), "{text}");
    }

    #[test]
    fn a_longer_value_shows_what_is_too_much() {
        let text = told(&[facts("a", "1"), facts("a\nb", "1")]).expect("they differ");
        assert!(text.contains("rank 0 has \"nothing more\", rank 1 has \"b\""), "{text}");
    }
}
