//! The port at which ranks meet. Whoever starts them, the order is one: the config's
//! (`--cfg-options` is part of it), as in mmengine; then the variable; then what the launcher
//! itself knows. torchrun's ranks alone are told MASTER_PORT as a fact: it serves there.

use std::fmt;

use crate::variables::{VariableError, Variables, number};

/// The port that torch, mmengine and most scripts meet at.
pub(crate) const USUAL: Port = Port { number: 29500, origin: PortOrigin::Usual };

/// A port and who chose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    pub number: u16,
    pub origin: PortOrigin,
}

/// Who chose a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortOrigin {
    /// `--cfg-options env_cfg.dist_cfg.port=…` or the config's `env_cfg.dist_cfg.port`.
    Config,
    /// The config, against a variable that names another port.
    ConfigOver(&'static str),
    /// An environment variable.
    Variable(&'static str),
    /// SLURM_STEP_RESV_PORTS: slurmctld set it aside for this step.
    Reserved,
    /// Computed from job and step.
    Job,
    /// 29500.
    Usual,
}

impl Port {
    /// What the user chose: the config's port, else the first of the variables `names` that is set.
    pub fn chosen(
        config: Option<u16>,
        variables: Variables<'_>,
        names: &[&'static str],
    ) -> Result<Option<Self>, VariableError> {
        let mut said = None;
        for name in names {
            let Some(number) = number::<u16>(variables, name)? else { continue };
            if number == 0 {
                return Err(VariableError { name: (*name).to_owned(), text: "0".to_owned() });
            }
            said = said.or(Some(Self { number, origin: PortOrigin::Variable(name) }));
        }
        Ok(match (config, said) {
            (Some(number), Some(Self { number: other, origin: PortOrigin::Variable(name) }))
                if other != number =>
            {
                Some(Self { number, origin: PortOrigin::ConfigOver(name) })
            }
            (Some(number), _) => Some(Self { number, origin: PortOrigin::Config }),
            (None, said) => said,
        })
    }

    /// What to say where a choice was overruled.
    pub fn remark(&self) -> Option<String> {
        match self.origin {
            PortOrigin::ConfigOver(name) => Some(format!(
                "the ranks meet at port {}, set by {}: {name} is not looked at",
                self.number, self.origin
            )),
            _ => None,
        }
    }
}

impl fmt::Display for PortOrigin {
    /// To be read after `set by`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config | Self::ConfigOver(_) => "env_cfg.dist_cfg.port",
            Self::Variable(name) => name,
            Self::Reserved => "SLURM_STEP_RESV_PORTS",
            Self::Job => "the ids of job and step",
            Self::Usual => "the default",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(config: Option<u16>, variables: &[(&str, &str)]) -> Result<Option<Port>, String> {
        let read = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        Port::chosen(config, &read, &["PORT", "MASTER_PORT"]).map_err(|error| error.to_string())
    }

    #[test]
    fn the_config_wins_over_the_variables_and_says_so() {
        let port = |number, origin| Ok(Some(Port { number, origin }));
        assert_eq!(chosen(None, &[]), Ok(None));
        assert_eq!(chosen(None, &[("PORT", "")]), Ok(None));
        assert_eq!(chosen(Some(3), &[]), port(3, PortOrigin::Config));
        assert_eq!(
            chosen(None, &[("MASTER_PORT", "2"), ("PORT", "1")]),
            port(1, PortOrigin::Variable("PORT"))
        );
        assert_eq!(
            chosen(None, &[("MASTER_PORT", "2")]),
            port(2, PortOrigin::Variable("MASTER_PORT"))
        );
        assert_eq!(chosen(Some(2), &[("MASTER_PORT", "2")]), port(2, PortOrigin::Config));
        let overruled = chosen(Some(3), &[("MASTER_PORT", "2")]).expect("ports").expect("one");
        let remark =
            "the ranks meet at port 3, set by env_cfg.dist_cfg.port: MASTER_PORT is not looked at";
        assert_eq!(overruled.remark().as_deref(), Some(remark));
        assert_eq!(
            chosen(Some(3), &[("PORT", "70000")]),
            Err("PORT=\"70000\": expected a whole number".to_owned())
        );
        assert!(chosen(None, &[("PORT", "0")]).is_err());
    }
}
