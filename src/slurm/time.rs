//! Slurm's durations: `30`, `10:00`, `1-12:00:00`, `UNLIMITED`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::excerpt::quoted;

/// A time limit, as `--time` takes it and `squeue` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeLimit {
    Of(Duration),
    Unlimited,
}

/// A text that is no duration of Slurm's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is no time that Slurm reads: expected minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM, \
         D-HH:MM:SS or UNLIMITED", quoted(.text))]
pub struct TimeError {
    pub text: String,
}

impl FromStr for TimeLimit {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let fail = || TimeError { text: text.to_owned() };
        if ["unlimited", "infinite"].iter().any(|word| text.eq_ignore_ascii_case(word))
            || text == "-1"
        {
            return Ok(Self::Unlimited);
        }
        let (days, clock) = match text.split_once('-') {
            Some((days, clock)) => (Some(number(days).ok_or_else(fail)?), clock),
            None => (None, text),
        };
        let parts: Vec<u64> =
            clock.split(':').map(number).collect::<Option<_>>().ok_or_else(fail)?;
        let [hours, minutes, seconds] = match (days, &parts[..]) {
            (Some(_), &[hours]) => [hours, 0, 0],
            (Some(_), &[hours, minutes]) => [hours, minutes, 0],
            (None, &[minutes]) => [0, minutes, 0],
            (None, &[minutes, seconds]) => [0, minutes, seconds],
            (_, &[hours, minutes, seconds]) => [hours, minutes, seconds],
            _ => return Err(fail()),
        };
        let total = [(days.unwrap_or(0), 86_400), (hours, 3600), (minutes, 60), (seconds, 1)]
            .into_iter()
            .try_fold(0_u64, |sum, (count, unit)| sum.checked_add(count.checked_mul(unit)?));
        Ok(Self::Of(Duration::from_secs(total.ok_or_else(fail)?)))
    }
}

impl fmt::Display for TimeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Of(duration) = self else { return f.write_str("UNLIMITED") };
        let seconds = duration.as_secs();
        let (days, hours, minutes, seconds) =
            (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        if days > 0 {
            write!(f, "{days}-")?;
        }
        write!(f, "{hours:02}:{minutes:02}:{seconds:02}")
    }
}

fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        None
    } else {
        text.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_of_the_manual_is_read() {
        for (text, seconds) in [
            ("30", 1800),
            ("10:30", 630),
            ("1:00:00", 3600),
            ("2-0", 172_800),
            ("1-12", 129_600),
            ("1-12:30", 131_400),
            ("1-12:30:05", 131_405),
        ] {
            assert_eq!(text.parse(), Ok(TimeLimit::Of(Duration::from_secs(seconds))), "{text}");
        }
        assert_eq!("UNLIMITED".parse(), Ok(TimeLimit::Unlimited));
        assert_eq!("infinite".parse(), Ok(TimeLimit::Unlimited));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "1h", "1:2:3:4", "-5", "1-", "1-2:3:4:5", "a:b", "99999999999999999999", "1.5"]
        {
            assert!(text.parse::<TimeLimit>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(seconds in 0_u64..10_000_000) {
            let limit = TimeLimit::Of(Duration::from_secs(seconds));
            prop_assert_eq!(limit.to_string().parse(), Ok(limit));
        }
    }
}
