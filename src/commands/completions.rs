//! `flott completions`: what a shell needs to complete command lines.

use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;
use flott::Result;

/// Prints a script that completes command lines of flott in a shell.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The shell
    shell: Shell,
}

const EXAMPLES: &str = "Examples:
  flott completions bash > ~/.local/share/bash-completion/completions/flott
  flott completions zsh > \"${fpath[1]}/_flott\"
  flott completions fish > ~/.config/fish/completions/flott.fish";

impl Arguments {
    /// Prints the script for `command`.
    pub fn run(self, mut command: Command) -> Result<ExitCode> {
        let name = command.get_name().to_string();
        clap_complete::generate(self.shell, &mut command, name, &mut std::io::stdout());
        Ok(ExitCode::SUCCESS)
    }
}
