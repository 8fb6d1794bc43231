//! Where values come from: the file, the environment, the flags.

use std::path::Path;

use serde_json::Value;

use super::{
    Config, ConfigError, KEYS,
    keys::{Key, Text},
};

/// Variables of ours that are no keys: they say where the configuration is.
const LOCATIONS: &[&str] = &["MESSAGEHUB_DATA", "MESSAGEHUB_CONFIG"];

/// Keys whose values nobody may read in a log.
const SECRETS: &[&str] = &["registration", "libp2p.privateNetworkSecret"];

pub(super) fn from_json(config: &mut Config, path: &Path, text: &str) -> Result<(), ConfigError> {
    let whole: Value = serde_json::from_str(text)
        .map_err(|error| ConfigError(format!("{}: is not JSON: {error}", path.display())))?;
    let Some(fields) = whole.as_object() else {
        return Err(ConfigError(format!("{}: must be one JSON object", path.display())));
    };
    for (name, value) in fields {
        let key = KEYS.iter().find(|key| key.name == name).ok_or_else(|| unknown(name))?;
        apply(config, key, name, value)?;
    }
    Ok(())
}

pub(super) fn from_environment(
    config: &mut Config,
    environment: &[(String, String)],
) -> Result<(), ConfigError> {
    for (variable, text) in environment {
        if !variable.starts_with("MESSAGEHUB_") || LOCATIONS.contains(&variable.as_str()) {
            continue;
        }
        let key = KEYS.iter().find(|key| key.variable() == *variable);
        let key = key.ok_or_else(|| {
            let names = KEYS.iter().map(Key::variable).collect::<Vec<_>>();
            let nearest = nearest(variable, names.iter().map(String::as_str));
            ConfigError(format!("{variable}: is not a known variable; the nearest is {nearest}"))
        })?;
        from_text(config, key, variable, text)?;
    }
    Ok(())
}

/// Flags are given by the name of their key.
pub(super) fn from_flags(
    config: &mut Config,
    flags: &[(&'static str, String)],
) -> Result<(), ConfigError> {
    for (name, text) in flags {
        let key = KEYS.iter().find(|key| key.name == *name).ok_or_else(|| unknown(name))?;
        from_text(config, key, name, text)?;
    }
    Ok(())
}

fn from_text(config: &mut Config, key: &Key, name: &str, text: &str) -> Result<(), ConfigError> {
    let value = match key.text {
        Text::Plain => Value::from(text),
        Text::List if text.trim().is_empty() => Value::Array(Vec::new()),
        Text::List => text.split(',').map(|item| Value::from(item.trim())).collect(),
        Text::Json => serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)),
    };
    apply(config, key, name, &value)
}

fn apply(config: &mut Config, key: &Key, name: &str, value: &Value) -> Result<(), ConfigError> {
    (key.apply)(config, value).ok_or_else(|| {
        // These are secrets, and an error line ends up in a log.
        let is_secret = SECRETS.contains(&key.name);
        let shown = if is_secret { "its value".to_owned() } else { value.to_string() };
        ConfigError(format!("{name}: {shown} is not allowed; allowed is {}", key.allowed))
    })
}

fn unknown(name: &str) -> ConfigError {
    let nearest = nearest(name, KEYS.iter().map(|key| key.name));
    ConfigError(format!("{name}: is not a known key; the nearest is {nearest}"))
}

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> &'a str {
    known.min_by_key(|known| edit_distance(name, known)).unwrap_or_default()
}

/// How many letters must be put in, taken out or replaced (Levenshtein).
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().flat_map(char::to_lowercase).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
