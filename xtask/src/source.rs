//! Checks on source text: sizes, forbidden words, pinned links to the specification.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::Faults;

/// Longest file, in lines, its tests apart (style rule 5).
const MAX_FILE_LINES: usize = 600;
/// Longest function, in lines from its first to its last (style rule 5).
const MAX_FUNCTION_LINES: usize = 70;
/// Where the specification is; in two parts, so that this file does not find itself.
const SPEC: &str = concat!("spec.", "matrix.org/");
/// The release of the specification that comments point at.
const SPEC_RELEASE: &str = "v1.19";

/// Checks every Rust file of the tree.
pub(crate) fn check(root: &Path) -> Faults {
    let mut files = Vec::new();
    for folder in ["crates", "tests", "xtask", "fuzz"] {
        collect(&root.join(folder), &mut files);
    }
    files.sort();
    let mut faults: Faults = files.iter().flat_map(|path| check_file(root, path)).collect();
    faults.extend(check_names(root, "ARCHITECTURE.md"));
    faults
}

/// Every path of ours that a document names in backquotes must exist.
fn check_names(root: &Path, document: &str) -> Faults {
    let text = match fs::read_to_string(root.join(document)) {
        Ok(text) => text,
        Err(error) => return vec![format!("{document}: {error}")],
    };
    let names = text.split('`').skip(1).step_by(2);
    let paths = names.filter(|name| name.starts_with("crates/") || name.starts_with("tests/"));
    let missing = paths.filter(|path| !root.join(path).exists());
    missing.map(|path| format!("{document}: names {path}, which is not there")).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && name != "node_modules" {
            collect(&path, files);
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
}

fn check_file(root: &Path, path: &Path) -> Faults {
    let shown = path.strip_prefix(root).unwrap_or(path).display().to_string();
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return vec![format!("{shown}: {error}")],
    };
    let lines: Vec<&str> = text.lines().collect();
    let own = if is_test(&shown) { 0 } else { lines_before_tests(&lines) };
    let mut faults = Vec::new();
    if own > MAX_FILE_LINES {
        faults.push(format!("{shown}: {own} lines without tests, allowed are {MAX_FILE_LINES}"));
    }
    if shown.ends_with("/mod.rs") {
        faults.push(format!("{shown}: is named foo.rs beside foo/, never mod.rs"));
    }
    faults.extend(long_functions(&shown, &lines));
    for (number, line) in lines.iter().enumerate().map(|(i, line)| (i + 1, line)) {
        faults.extend(check_line(line).map(|fault| format!("{shown}:{number}: {fault}")));
    }
    faults
}

fn is_test(path: &str) -> bool {
    path.starts_with("tests/")
        || path.ends_with("/tests.rs")
        || path.contains("/tests/")
        || path.contains("/benches/")
}

fn lines_before_tests(lines: &[&str]) -> usize {
    let tests = lines.windows(2).position(|pair| {
        pair[0].trim() == "#[cfg(test)]" && pair[1].trim_start().starts_with("mod tests {")
    });
    tests.unwrap_or(lines.len())
}

/// In formatted code a function ends at the first brace that stands where its first line began.
fn long_functions(shown: &str, lines: &[&str]) -> Faults {
    let mut faults = Vec::new();
    for (start, line) in lines.iter().enumerate().filter(|(_, line)| starts_function(line)) {
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indent));
        let length = lines[start..].iter().position(|line| *line == closing).map_or(0, |n| n + 1);
        let expected = lines[start.saturating_sub(6)..start]
            .iter()
            .any(|line| line.contains("clippy::too_many_lines"));
        if length > MAX_FUNCTION_LINES && !expected {
            faults.push(format!(
                "{shown}:{}: a function of {length} lines, allowed are {MAX_FUNCTION_LINES}",
                start + 1
            ));
        }
    }
    faults
}

fn starts_function(line: &str) -> bool {
    let mut words = line.trim_start();
    for prefix in ["pub(crate) ", "pub(super) ", "pub ", "const ", "async "] {
        words = words.strip_prefix(prefix).unwrap_or(words);
    }
    words.starts_with("fn ") && !line.trim_end().ends_with(';')
}

fn check_line(line: &str) -> Option<String> {
    let text = line.trim_start();
    // Spelled in two parts, so that this file does not find itself.
    let forbidden = [
        (concat!("#[", "allow("), "use #[expect(…, reason = …)]"),
        (concat!("#![", "allow("), "use #[expect(…, reason = …)]"),
        (concat!("#[", "ignore"), "a test is run or is not there"),
        (concat!("TO", "DO"), "an open end belongs into an issue"),
        (concat!("FIX", "ME"), "an open end belongs into an issue"),
        (concat!("thread::", "sleep("), "wait for the event, with a deadline"),
    ];
    for (word, instead) in forbidden {
        if text.contains(word) {
            return Some(format!("{word}: {instead}"));
        }
    }
    let (_, link) = text.split_once(SPEC)?;
    (!link.starts_with(SPEC_RELEASE))
        .then(|| format!("a link to the specification is not pinned to {SPEC_RELEASE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_function_is_found() {
        let mut text = "fn short() {\n}\n\npub async fn long() {\n".to_owned();
        text.push_str(&"    work();\n".repeat(MAX_FUNCTION_LINES));
        text.push_str("}\n");
        let lines: Vec<&str> = text.lines().collect();
        let faults = long_functions("a.rs", &lines);
        assert_eq!(faults, ["a.rs:4: a function of 72 lines, allowed are 70"]);
    }

    #[test]
    fn tests_do_not_count() {
        let lines = ["fn a() {}", "#[cfg(test)]", "mod tests {", "}"];
        assert_eq!(lines_before_tests(&lines), 1);
    }

    #[test]
    fn words_and_links_are_checked() {
        assert!(check_line(concat!("#[", "allow(dead_code)]")).is_some());
        assert!(check_line(&format!("/// https://{SPEC}latest/x")).is_some());
        assert!(check_line(&format!("/// https://{SPEC}{SPEC_RELEASE}/x")).is_none());
        assert!(check_line("let x = 1;").is_none());
    }
}
