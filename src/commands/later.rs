//! Commands that need checkpoints, which are not there yet: they say so, rather than being unknown words.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use flott::{Error, Result};

/// Whatever follows.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub struct Arguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<OsString>,
}

impl Arguments {
    /// Says that `command` is not there, and what is.
    pub fn run(self, command: &str, instead: &str) -> Result<ExitCode> {
        let Arguments { rest: _ } = self;
        Err(Error::configuration(format!(
            "`flott {command}` needs checkpoints, which this version of Flott does not have; {instead}"
        )))
    }
}
