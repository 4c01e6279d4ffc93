//! A YAML text as a tree of nodes that remember their line. Scalars keep the text that was written: `10 s`, `0x10` and `yes` are
//! what they look like, and each option reads its own text.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// Deepest nesting and most nodes of a text: far above any configuration, far below what could exhaust the stack or memory
/// through aliases that repeat each other.
const DEPTH_MAX: usize = 32;
const NODES_MAX: usize = 100_000;

/// A value and where it starts.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Line, from 1.
    pub line: usize,
    pub content: Content,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    Null,
    Scalar(String),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: String,
    pub line: usize,
    pub value: Node,
}

/// What is wrong with a text, and where (both from 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub line: usize,
    pub column: usize,
    pub reason: String,
}

impl SyntaxError {
    fn new(span: &Span, reason: impl Into<String>) -> Self {
        SyntaxError { line: span.start.line(), column: span.start.col() + 1, reason: reason.into() }
    }
}

/// Whether a plain scalar of this text is YAML's null.
pub(super) fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// Reads the one document of `text`; `None` where there is none.
pub(super) fn parse(text: &str) -> Result<Option<Node>, SyntaxError> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| SyntaxError {
            line: error.marker().line(),
            column: error.marker().col() + 1,
            reason: reason(error.info()),
        })?;
        builder.take(event, &span)?;
    }
    Ok(builder.root)
}

/// What the parser says, put so that it helps whoever wrote the text.
fn reason(info: &str) -> String {
    match info {
        // The parser notices on the line that follows.
        "simple key expect ':'" => "no `:` after a key, on this line or the one above".into(),
        "while parsing node, found unknown anchor" => {
            "this alias (`*`) repeats nothing that came before".into()
        }
        _ if info.starts_with("tabs disallowed") => "a tab where only spaces may indent".into(),
        _ => info.into(),
    }
}

/// A collection whose end has not come yet.
struct Open {
    line: usize,
    anchor: usize,
    items: Items,
}

enum Items {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<Entry>, key: Option<(String, usize)> },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    documents: usize,
    root: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), SyntaxError> {
        let line = span.start.line();
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(SyntaxError::new(
                        span,
                        "a second document starts here; a configuration is one document",
                    ));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, _) => {
                let content = match style == ScalarStyle::Plain && is_null(&text) {
                    // A key is always text, even where it reads like a null.
                    true if !self.wants_key() => Content::Null,
                    _ => Content::Scalar(text.into_owned()),
                };
                self.add(Node { line, content }, anchor, span)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => {
                    let node = Node { line, ..node.clone() };
                    self.nodes += size(&node);
                    self.add(node, 0, span)
                }
                None => Err(SyntaxError::new(span, "an alias may not stand inside what it repeats")),
            },
            Event::SequenceStart(anchor, _) => self.start(line, anchor, Items::Sequence(Vec::new()), span),
            Event::MappingStart(anchor, _) => {
                self.start(line, anchor, Items::Mapping { entries: Vec::new(), key: None }, span)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { line, anchor, items }) = self.open.pop() else {
                    return Err(SyntaxError::new(span, "a collection ends that never began"));
                };
                let content = match items {
                    Items::Sequence(items) => Content::Sequence(items),
                    Items::Mapping { entries, .. } => Content::Mapping(entries),
                };
                self.add(Node { line, content }, anchor, span)
            }
        }
    }

    fn wants_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { items: Items::Mapping { key: None, .. }, .. }))
    }

    fn start(&mut self, line: usize, anchor: usize, items: Items, span: &Span) -> Result<(), SyntaxError> {
        if self.wants_key() {
            return Err(SyntaxError::new(span, "a key must be text"));
        }
        if self.open.len() == DEPTH_MAX {
            return Err(SyntaxError::new(span, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        self.open.push(Open { line, anchor, items });
        Ok(())
    }

    /// Puts a complete node where it belongs.
    fn add(&mut self, node: Node, anchor: usize, span: &Span) -> Result<(), SyntaxError> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(SyntaxError::new(span, format!("more than {NODES_MAX} values")));
        }
        if depth(&node) + self.open.len() > DEPTH_MAX {
            return Err(SyntaxError::new(span, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        if anchor != 0 {
            self.nodes += size(&node);
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open { items: Items::Sequence(items), .. }) => items.push(node),
            Some(Open { items: Items::Mapping { entries, key }, .. }) => match key.take() {
                Some((key, line)) => entries.push(Entry { key, line, value: node }),
                None => match node.content {
                    Content::Scalar(text) if text == "<<" => {
                        return Err(SyntaxError::new(
                            span,
                            "merge keys (`<<`) are not supported; write the keys out",
                        ));
                    }
                    Content::Scalar(text) => *key = Some((text, node.line)),
                    _ => return Err(SyntaxError::new(span, "a key must be text")),
                },
            },
        }
        Ok(())
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.content {
        Content::Null | Content::Scalar(_) => 0,
        Content::Sequence(items) => items.iter().map(size).sum(),
        Content::Mapping(entries) => entries.iter().map(|entry| size(&entry.value)).sum(),
    }
}

fn depth(node: &Node) -> usize {
    match &node.content {
        Content::Null | Content::Scalar(_) => 0,
        Content::Sequence(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Content::Mapping(entries) => 1 + entries.iter().map(|entry| depth(&entry.value)).max().unwrap_or(0),
    }
}
