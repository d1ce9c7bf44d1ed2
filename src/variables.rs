//! The environment as every part sees it: a reader that is handed down, so that tests can answer in
//! its place. A variable that is empty or blank is absent; a number is made of digits alone, with
//! blanks around it or not.

use std::str::FromStr;

use crate::excerpt::quoted;
use crate::exit::{Exit, Exits};

/// Reads one environment variable.
pub(crate) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A variable that is no number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}={}: expected a whole number", quoted(.text))]
pub struct VariableError {
    pub name: String,
    pub text: String,
}

impl Exits for VariableError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

/// The text of a variable, without blanks around it.
pub(crate) fn text(variables: Variables<'_>, name: &str) -> Option<String> {
    variables(name).map(|it| it.trim().to_owned()).filter(|it| !it.is_empty())
}

/// The number in a variable; one that `T` cannot hold is none.
pub(crate) fn number<T: FromStr>(
    variables: Variables<'_>,
    name: &str,
) -> Result<Option<T>, VariableError> {
    let Some(text) = text(variables, name) else { return Ok(None) };
    let digits = text.bytes().all(|it| it.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten();
    number.map(Some).ok_or_else(|| VariableError { name: name.to_owned(), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_is_absent_and_a_number_is_digits_that_fit() {
        let read = |value: &'static str| number::<u16>(&move |_| Some(value.to_owned()), "N");
        assert_eq!(number::<u16>(&|_| None, "N"), Ok(None));
        assert_eq!(
            (read(""), read(" \t"), read(" 12\n"), read("0")),
            (Ok(None), Ok(None), Ok(Some(12)), Ok(Some(0)))
        );
        for wrong in ["x", "-1", "+1", "1.0", "70000", "0x10", "1 2"] {
            assert_eq!(
                read(wrong).expect_err("no number").to_string(),
                format!("N={wrong:?}: expected a whole number")
            );
        }
    }
}
