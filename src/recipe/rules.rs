//! Globs over names, the last that matches counting.

use std::sync::Arc;

use wildmatch::WildMatch;

use crate::error::{Error, Result};

/// What to do with the names that match; `None` is nothing, whatever an earlier pattern says.
#[derive(Debug)]
pub(super) struct Rules<T: ?Sized>(Vec<(String, Option<Arc<T>>)>);

impl<T: ?Sized> Clone for Rules<T> {
    fn clone(&self) -> Self {
        Rules(self.0.clone())
    }
}

impl<T: ?Sized> Default for Rules<T> {
    fn default() -> Self {
        Rules(Vec::new())
    }
}

impl<T: ?Sized> Rules<T> {
    pub(super) fn push(&mut self, pattern: impl Into<String>, what: Option<Arc<T>>) {
        self.0.push((pattern.into(), what));
    }

    /// The patterns whose matches stay as they are.
    pub(super) fn kept(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, what)| what.is_none()).map(|(pattern, _)| pattern.as_str())
    }

    /// Whether anything is done to any name.
    pub(super) fn do_something(&self) -> bool {
        self.0.iter().any(|(_, what)| what.is_some())
    }

    /// What each name gets. A pattern matches a name with or without its `.weight`; one that matches none is an error.
    pub(super) fn choose(&self, names: Vec<String>) -> Result<Vec<(String, Option<Arc<T>>)>> {
        for (pattern, _) in &self.0 {
            if !names.iter().any(|name| matches(pattern, name)) {
                return Err(Error::Pattern { pattern: pattern.clone(), known: names });
            }
        }
        let chosen = names.into_iter().map(|name| {
            let rule = self.0.iter().rev().find(|(pattern, _)| matches(pattern, &name));
            (name, rule.and_then(|(_, what)| what.clone()))
        });
        Ok(chosen.collect())
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    let pattern = WildMatch::new(pattern);
    pattern.matches(name) || name.strip_suffix(".weight").is_some_and(|layer| pattern.matches(layer))
}
