//! The settings file, and where in it things stand: an error names file, line and key, and never repeats a value that may be a
//! password.

use std::path::PathBuf;

use super::{Args, ConfigError, FileSettings};

/// Where settings stand, so that an error can name the line.
pub(super) struct Places {
    file: Option<PathBuf>,
    text: String,
    /// What flags or the environment say, and the file therefore does not.
    flags: Vec<&'static str>,
}

impl Places {
    pub fn of(args: &Args) -> Result<Self, ConfigError> {
        let read = |file: &PathBuf| {
            std::fs::read_to_string(file).map_err(|error| ConfigError::File {
                file: file.clone(),
                why: error.to_string(),
            })
        };
        let told = [
            ("control_plane", !args.control_plane.is_empty()),
            ("source", args.source.is_some()),
            ("source_low", args.source_low.is_some()),
            ("microphone", args.microphone.is_some()),
            ("page", args.page.is_some()),
            ("uplink", !args.uplink.is_empty()),
            ("log", args.log.is_some()),
        ];
        Ok(Self {
            text: args.config.as_ref().map(read).transpose()?.unwrap_or_default(),
            file: args.config.clone(),
            flags: told
                .into_iter()
                .filter_map(|(key, told)| told.then_some(key))
                .collect(),
        })
    }

    pub fn settings(&self) -> Result<FileSettings, ConfigError> {
        toml::from_str(&self.text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start.min(self.text.len()));
            let line = self.text.as_bytes()[..at]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            let key = self.text.lines().nth(line).and_then(|line| line.split_once('='));
            let key = key
                .map(|(key, _)| format!("{}: ", key.trim()))
                .unwrap_or_default();
            // What stands in the line may be a password.
            let message = error.message().split("string \"").next().unwrap_or_default();
            let expected = error
                .message()
                .rsplit_once(", expected ")
                .map_or("", |(_, expected)| expected);
            let why = match message == error.message() {
                true => message.to_owned(),
                false => format!("{message}text, expected {expected}"),
            };
            self.at(line + 1, &format!("{key}{why}"))
        })
    }

    /// The same error with file and line, where it is of what the file says.
    pub fn find(&self, error: ConfigError) -> ConfigError {
        let keys: &[&str] = match &error {
            ConfigError::SourceNotYet(_) | ConfigError::UnknownSource | ConfigError::Size(_) => &["source"],
            ConfigError::Camera(_) => &["source_low", "source"],
            ConfigError::NoSecondStream => &["source_low"],
            ConfigError::NoCapture => &["microphone", "[capture]"],
            ConfigError::Capture(key, _) | ConfigError::Range { key, .. } => &[*key],
            ConfigError::Address => &["control_plane"],
            ConfigError::Page | ConfigError::NoPage | ConfigError::PageNotHere => &["page"],
            ConfigError::Uplink(_) => &["uplink"],
            ConfigError::Missing(_) | ConfigError::Token(_) | ConfigError::File { .. } => &[],
        };
        let known = |key: &&&str| !self.flags.contains(*key);
        let place = keys
            .iter()
            .filter(known)
            .find_map(|key| Some((self.line_of(key)?, key)));
        match place {
            Some((line, _)) if matches!(error, ConfigError::Range { .. }) => {
                self.at(line, &error.to_string())
            }
            Some((line, key)) => self.at(line, &format!("{key}: {error}")),
            None => error,
        }
    }

    /// The first line, from 1, that sets this key.
    fn line_of(&self, key: &str) -> Option<usize> {
        let sets = |line: &str| {
            let rest = line.trim_start().strip_prefix(key).map(str::trim_start);
            rest.is_some_and(|rest| rest.starts_with('=') || key.starts_with('['))
        };
        self.text.lines().position(sets).map(|line| line + 1)
    }

    fn at(&self, line: usize, why: &str) -> ConfigError {
        ConfigError::File {
            file: self.file.clone().unwrap_or_default(),
            why: format!("line {line}: {why}"),
        }
    }
}
