//! Patterns of what is left out, as `.gitignore` and `tar --exclude` have them, without negation and character classes.

/// One pattern.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    tokens: Vec<Token>,
    /// It is a path from the root of the copy, else the name of anything at any depth.
    is_path: bool,
    only_folders: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// `?`: one byte of a name.
    One,
    /// `*`: any bytes of a name.
    Name,
    /// `**`: any bytes of a path.
    Path,
}

impl Pattern {
    pub(crate) fn new(text: &[u8]) -> Self {
        let (text, only_folders) = match text.strip_suffix(b"/") {
            Some(text) => (text, true),
            None => (text, false),
        };
        let is_path = text.contains(&b'/');
        let text = text.strip_prefix(b"/").unwrap_or(text);
        let mut tokens: Vec<Token> = Vec::with_capacity(text.len());
        for byte in text {
            match (byte, tokens.last()) {
                (b'*', Some(Token::Name | Token::Path)) => {
                    tokens.pop();
                    tokens.push(Token::Path);
                }
                (b'*', _) => tokens.push(Token::Name),
                (b'?', _) => tokens.push(Token::One),
                (byte, _) => tokens.push(Token::Byte(*byte)),
            }
        }
        Self {
            tokens,
            is_path,
            only_folders,
        }
    }

    /// Whether it means this path, which is relative to the root of the copy.
    pub(crate) fn matches(&self, path: &[u8], is_folder: bool) -> bool {
        if self.only_folders && !is_folder {
            return false;
        }
        let subject = if self.is_path {
            path
        } else {
            path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
        };
        self.accepts(subject)
    }

    /// Follows all ways through the tokens at once: no pattern takes longer than its length times the path's.
    fn accepts(&self, subject: &[u8]) -> bool {
        let mut states = vec![false; self.tokens.len() + 1];
        if let Some(first) = states.first_mut() {
            *first = true;
        }
        self.skip_stars(&mut states);
        for byte in subject {
            let mut next = vec![false; states.len()];
            for (index, token) in self.tokens.iter().enumerate() {
                if !states.get(index).copied().unwrap_or_default() {
                    continue;
                }
                let target = match token {
                    Token::Byte(own) if own == byte => index + 1,
                    Token::One if *byte != b'/' => index + 1,
                    Token::Name if *byte != b'/' => index,
                    Token::Path => index,
                    _ => continue,
                };
                if let Some(state) = next.get_mut(target) {
                    *state = true;
                }
            }
            self.skip_stars(&mut next);
            states = next;
        }
        states.last().copied().unwrap_or_default()
    }

    /// A star may stand for nothing.
    fn skip_stars(&self, states: &mut [bool]) {
        for (index, token) in self.tokens.iter().enumerate() {
            let is_star = matches!(token, Token::Name | Token::Path);
            if is_star
                && states.get(index).copied().unwrap_or_default()
                && let Some(next) = states.get_mut(index + 1)
            {
                *next = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Pattern::new(pattern.as_bytes()).matches(path.as_bytes(), false)
    }

    #[test]
    fn a_pattern_without_a_slash_is_a_name_at_any_depth() {
        assert!(matches("node_modules", "node_modules"));
        assert!(matches("node_modules", "a/b/node_modules"));
        assert!(matches("*.log", "a/x.log"));
        assert!(matches("?.c", "a.c"));
        assert!(!matches("*.log", "a.log/x"));
        assert!(!matches("?.c", "aa.c"));
        assert!(!matches("", "a"));
    }

    #[test]
    fn a_pattern_with_a_slash_is_a_path_from_the_root() {
        assert!(matches("/build", "build"));
        assert!(!matches("/build", "a/build"));
        assert!(matches("a/*.c", "a/x.c"));
        assert!(!matches("a/*.c", "a/b/x.c"));
        assert!(matches("a/**.c", "a/b/x.c"));
        assert!(matches("**/x", "a/b/x"));
    }

    #[test]
    fn a_slash_at_the_end_means_folders_alone() {
        let pattern = Pattern::new(b"target/");
        assert!(pattern.matches(b"a/target", true));
        assert!(!pattern.matches(b"a/target", false));
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = Pattern::new("*a".repeat(200).as_bytes());
        assert!(!pattern.matches("a".repeat(150).as_bytes(), false));
    }
}
