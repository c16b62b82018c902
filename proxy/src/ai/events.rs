//! The events of a stream (Server-Sent Events, HTML 9.2.6), one by one, however the bytes come.

/// A longer one is passed on without a look.
pub(super) const EVENT_BYTES_MAX: usize = 1 << 20;

/// Clients leave it out, once, at the start of a stream (HTML 9.2.6).
const MARK: &[u8] = b"\xef\xbb\xbf";

/// What is there of the next event.
#[derive(Debug, Default)]
pub(super) struct Events {
    pending: Vec<u8>,
    /// It is known whether there was a mark at its start.
    begun: bool,
    /// Up to here there is no end of an event.
    looked: usize,
    /// It is too long, and its beginning has been given already.
    overlong: bool,
}

/// Some bytes of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'p> {
    /// All of one event, with the empty line behind it.
    Event(&'p [u8]),
    /// A part of one that is too long.
    Part(&'p [u8]),
}

impl Events {
    pub(super) fn push(&mut self, bytes: &[u8], mut give: impl FnMut(Piece<'_>)) {
        self.pending.extend_from_slice(bytes);
        if !self.begun {
            if self.pending.len() < MARK.len() && MARK.starts_with(&self.pending) {
                return;
            }
            self.begun = true;
            if self.pending.starts_with(MARK) {
                self.pending.drain(..MARK.len());
            }
        }
        let mut begin = 0;
        while let Some(end) = end_of_event(&self.pending, begin, self.looked.max(begin)) {
            let event = &self.pending[begin..end];
            give(if std::mem::take(&mut self.overlong) { Piece::Part(event) } else { Piece::Event(event) });
            begin = end;
            self.looked = end;
        }
        self.pending.drain(..begin);
        if self.pending.len() > EVENT_BYTES_MAX {
            // The last bytes stay: they may begin the empty line.
            let rest = self.pending.split_off(self.pending.len() - 3);
            give(Piece::Part(&self.pending));
            (self.pending, self.overlong) = (rest, true);
        }
        // What ends an event is at most four bytes.
        self.looked = self.pending.len().saturating_sub(3);
    }

    /// What is there of an event that did not end.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pending)
    }
}

/// Behind the first empty line.
fn end_of_event(bytes: &[u8], begin: usize, from: usize) -> Option<usize> {
    (from.max(begin)..bytes.len()).find_map(|at| {
        let before = &bytes[begin..=at];
        let ends = [&b"\n\n"[..], b"\r\n\r\n", b"\r\r", b"\n\r\n"].iter().any(|it| before.ends_with(it));
        ends.then_some(at + 1)
    })
}

/// One line of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'e> {
    /// A piece of what it says.
    Data(&'e [u8]),
    /// Another field that clients know, a comment, or nothing.
    Beside(&'e [u8]),
    /// Nothing of a stream: what a client makes of it nobody knows.
    Unknown,
}

pub(super) fn lines(event: &[u8]) -> impl Iterator<Item = Line<'_>> {
    event.split(|b| matches!(b, b'\n' | b'\r')).map(|line| {
        if let Some(text) = line.strip_prefix(b"data:") {
            return Line::Data(text.strip_prefix(b" ").unwrap_or(text));
        }
        match line.split(|b| *b == b':').next().unwrap_or_default() {
            b"" | b"data" | b"event" | b"id" | b"retry" => Line::Beside(line),
            _ => Line::Unknown,
        }
    })
}

/// What an event says: its `data` lines, joined.
pub(super) fn data(event: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    for line in lines(event) {
        let Line::Data(text) = line else { continue };
        if !data.is_empty() {
            data.push(b'\n');
        }
        data.extend_from_slice(text);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &[u8], size: usize) -> (Vec<Vec<u8>>, Vec<u8>) {
        let (mut events, mut all) = (Events::default(), Vec::new());
        for part in text.chunks(size) {
            events.push(part, |piece| match piece {
                Piece::Event(event) => all.push(event.to_vec()),
                Piece::Part(_) => panic!("none is too long"),
            });
        }
        (all, events.rest())
    }

    #[test]
    fn events_are_found_however_the_bytes_come() {
        let text = b"data: a\n\nevent: x\r\ndata: b\r\ndata:c\r\n\r\n: ping\n\ndata: d\r\rdata: [DONE]\n";
        for size in 1..=text.len() {
            let (events, rest) = split(text, size);
            let said: Vec<_> = events.iter().map(|it| String::from_utf8(data(it)).unwrap()).collect();
            assert_eq!(said, ["a", "b\nc", "", "d"], "{size}");
            assert_eq!(rest, b"data: [DONE]\n", "{size}");
            assert_eq!([events.concat(), rest].concat(), text, "{size}");
        }
    }

    #[test]
    fn a_mark_at_the_start_is_no_part_of_the_first_event() {
        let text = b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n";
        for size in 1..=text.len() {
            let (events, rest) = split(text, size);
            let said: Vec<_> = events.iter().map(|it| String::from_utf8(data(it)).unwrap()).collect();
            assert_eq!((said, rest), (vec!["a".to_owned(), String::new()], Vec::new()), "{size}");
            assert_eq!(lines(&events[1]).next(), Some(Line::Unknown), "there is one mark at most");
        }
        assert_eq!(split(b"\n\n\xef\xbb\xbfdata: b\n\n", 1).0.len(), 2);
        assert_eq!(split(b"\xef\xbb", 1), (Vec::new(), b"\xef\xbb".to_vec()));
    }

    #[test]
    fn each_line_is_what_clients_take_it_for() {
        let event = b": ping\nevent: x\nid\nretry:5\ndata\ndata:a\ndata: b\n{\"data\": 1}\ndata : c\nDATA: d\n\n";
        let beside = |it: &'static [u8]| Line::Beside(it);
        let expected = [
            beside(b": ping"),
            beside(b"event: x"),
            beside(b"id"),
            beside(b"retry:5"),
            beside(b"data"),
            Line::Data(b"a"),
            Line::Data(b"b"),
            Line::Unknown,
            Line::Unknown,
            Line::Unknown,
            beside(b""),
            beside(b""),
        ];
        assert_eq!(lines(event).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_too_long_passes_and_the_next_is_found_again() {
        let long = [b"data: ".to_vec(), vec![b'x'; 2 * EVENT_BYTES_MAX], b"\n\ndata: a\n\n".to_vec()].concat();
        let (mut events, mut passed, mut seen) = (Events::default(), 0, Vec::new());
        for part in long.chunks(60_000) {
            events.push(part, |piece| match piece {
                Piece::Event(event) => seen.push(event.to_vec()),
                Piece::Part(part) => passed += part.len(),
            });
            assert!(events.pending.len() <= EVENT_BYTES_MAX + 60_000);
        }
        assert_eq!(seen, [b"data: a\n\n"]);
        assert_eq!(passed + 9 + events.rest().len(), long.len());
    }
}
