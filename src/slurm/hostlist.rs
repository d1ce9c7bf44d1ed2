//! Slurm's host lists, `gpu[01-03,7],login`, in the full grammar of its `hostlist.c`, text after
//! the last bracket included (which Slurm itself reads from 23.11 on). Own code, because `scontrol`
//! is often missing inside containers.

use crate::excerpt::{line, quoted};

/// Most hosts that a single range may hold, as in Slurm.
const RANGE_LIMIT: u64 = 64 * 1024;
/// Most hosts that a whole list may hold.
const LIST_LIMIT: usize = 256 * 1024;
/// Most characters of a host's name, as in DNS.
const NAME_LIMIT: usize = 255;
/// Most digits of a number in a bracket, leading zeros included; a number is a `u64`.
const DIGITS: usize = 20;

/// A host list that does not follow the grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed host list {}: {}", quoted(.list), line(.reason))]
pub struct HostlistError {
    pub list: String,
    pub reason: String,
}

/// The hosts of a list, in its order, duplicates kept.
///
/// # Errors
/// An empty list, an open or stray bracket, a range that is no number or runs backwards, a nodeset
/// in braces (which only a controller can expand), more hosts than Slurm's limits.
pub fn expand(list: &str) -> Result<Vec<String>, HostlistError> {
    let fail = |reason: String| HostlistError { list: list.to_owned(), reason };
    let mut hosts = Vec::new();
    for item in items(list).map_err(fail)? {
        expand_item(item, &mut hosts).map_err(fail)?;
    }
    if hosts.is_empty() {
        return Err(fail("it names no host".to_owned()));
    }
    Ok(hosts)
}

/// Splits at commas and blanks outside brackets.
fn items(list: &str) -> Result<Vec<&str>, String> {
    let mut items = Vec::new();
    let (mut start, mut open) = (0, false);
    for (at, c) in list.char_indices() {
        match c {
            '[' if open => return Err("a bracket inside a bracket".to_owned()),
            '[' => open = true,
            ']' if !open => return Err("a closing bracket without its opening one".to_owned()),
            ']' => open = false,
            '{' | '}' => {
                return Err("a nodeset in braces; only a Slurm controller can expand it".to_owned());
            }
            ',' | ' ' | '\t' | '\n' if !open => {
                items.push(&list[start..at]);
                start = at + 1;
            }
            c if c.is_control() => return Err(format!("the control character {c:?}")),
            _ => {}
        }
    }
    if open {
        return Err("an opening bracket without its closing one".to_owned());
    }
    items.push(&list[start..]);
    items.retain(|item| !item.is_empty());
    Ok(items)
}

/// Appends the cross product of an item's brackets, leftmost slowest.
fn expand_item(item: &str, hosts: &mut Vec<String>) -> Result<(), String> {
    let mut names = vec![String::new()];
    let mut rest = item;
    let mut longest = 0;
    let mut longer = |by: usize| {
        longest += by;
        if longest > NAME_LIMIT {
            Err(format!("a host name of more than {NAME_LIMIT} characters"))
        } else {
            Ok(())
        }
    };
    while let Some((text, after)) = rest.split_once('[') {
        let Some((inside, after)) = after.split_once(']') else {
            return Err("an opening bracket without its closing one".to_owned());
        };
        let numbers = ranges(inside)?;
        longer(text.len() + numbers.iter().map(String::len).max().unwrap_or(0))?;
        if hosts.len() + names.len() * numbers.len() > LIST_LIMIT {
            return Err(format!("more than {LIST_LIMIT} hosts"));
        }
        names = names
            .iter()
            .flat_map(|name| numbers.iter().map(move |number| format!("{name}{text}{number}")))
            .collect();
        rest = after;
    }
    longer(rest.len())?;
    for name in &mut names {
        name.push_str(rest);
    }
    hosts.append(&mut names);
    if hosts.len() > LIST_LIMIT { Err(format!("more than {LIST_LIMIT} hosts")) } else { Ok(()) }
}

/// The numbers inside a bracket, each with the width that its range's first number has.
fn ranges(inside: &str) -> Result<Vec<String>, String> {
    let mut numbers = Vec::new();
    for range in inside.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (low, high) = (number(first, range)?, number(last, range)?);
        if low > high {
            return Err(format!("the range {} runs backwards", quoted(range)));
        }
        if high - low >= RANGE_LIMIT {
            return Err(format!("the range {} holds more than {RANGE_LIMIT} hosts", quoted(range)));
        }
        if numbers.len() > LIST_LIMIT {
            return Err(format!("more than {LIST_LIMIT} hosts"));
        }
        numbers.extend((low..=high).map(|number| format!("{number:0width$}", width = first.len())));
    }
    Ok(numbers)
}

fn number(text: &str, range: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "{} in a bracket is neither a number nor a range like 1-3",
            quoted(range)
        ));
    }
    text.parse()
        .ok()
        .filter(|_| text.len() <= DIGITS)
        .ok_or_else(|| format!("the number {text} is too large"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(list: &str, hosts: &str) {
        assert_eq!(expand(list).expect(list).join(" "), hosts);
    }

    #[test]
    fn lists_expand_as_scontrol_expands_them() {
        check("n1", "n1");
        check("n[1-3,7]", "n1 n2 n3 n7");
        check("n[7,1-2]", "n7 n1 n2");
        check("n[001-3]", "n001 n002 n003");
        check("n[9-011]", "n9 n10 n11");
        check("n[5],m[1-2]", "n5 m1 m2");
        check("a[1-2]b[3-4]", "a1b3 a1b4 a2b3 a2b4");
        check("n1 n2\tn3,,n4\n", "n1 n2 n3 n4");
        check("gpu-[001-002]-ib0", "gpu-001-ib0 gpu-002-ib0");
        check("dgx-a-[1-2],login", "dgx-a-1 dgx-a-2 login");
        check("n[1-2],n[2-3]", "n1 n2 n2 n3");
    }

    #[test]
    fn malformed_lists_are_refused_with_their_reason() {
        for (list, reason) in [
            ("", "names no host"),
            (" ,", "names no host"),
            ("n[1-2", "without its closing"),
            ("n1-2]", "without its opening"),
            ("n[[1]]", "inside a bracket"),
            ("n[3-1]", "runs backwards"),
            ("n[a-b]", "neither a number"),
            ("n[1-]", "neither a number"),
            ("n[]", "neither a number"),
            ("n[1-99999999]", "more than 65536"),
            ("n[0-65535][0-65535]", "more than 262144"),
            ("n[99999999999999999999]", "too large"),
            ("{gpus}", "nodeset"),
        ] {
            let error = expand(list).expect_err(list).to_string();
            assert!(error.contains(reason), "{list:?}: {error}");
        }
    }

    #[test]
    fn names_and_numbers_have_an_end() {
        let reason = |list: String| expand(&list).expect_err("too long").reason;
        assert!(reason(format!("n[1-{}2]", "0".repeat(70_000))).contains("is too large"));
        assert!(reason(format!("n[{}1-2]", "0".repeat(70_000))).contains("is too large"));
        assert!(reason("n".repeat(100_000)).contains("more than 255 characters"));
        assert!(
            reason(format!("{}[0-65535]", "n".repeat(100_000)))
                .contains("more than 255 characters")
        );
        assert!(reason("[1]".repeat(100_000)).contains("more than 255 characters"));
        let message = expand(&"[".repeat(100_000)).expect_err("brackets").to_string();
        assert!(
            message.len() < 1000 && message.ends_with("a bracket inside a bracket"),
            "{message}"
        );
        let numbered =
            [format!("n{}", "9".repeat(30)), "n5".to_owned(), format!("n{}", "0".repeat(100))];
        assert_eq!(expand(&numbered.join(",")), Ok(numbered.to_vec()));
    }

    proptest! {
        #[test]
        fn names_without_brackets_are_themselves(hosts in prop::collection::vec("[a-c]{1,2}-?[0-9]{0,3}", 1..40)) {
            prop_assert_eq!(expand(&hosts.join(",")), Ok(hosts));
        }

        #[test]
        fn no_text_makes_it_panic(list in "[a-c0-9\\[\\],\\- {}é]{0,24}") {
            let _ = expand(&list);
        }
    }
}
