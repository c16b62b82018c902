//! A look at the raw head of HTTP/1 requests, for what the HTTP library tolerates or tidies away before we see it: a
//! line that ends in a bare LF, Content-Length beside Transfer-Encoding, and Content-Length said twice.
//!
//! It reads heads only. Behind a head with a body it loses track, and starts again with the first bytes that come in
//! once the exchange is over; a head that is pipelined behind a body is therefore not looked at, nor is any behind a
//! body that the exchange left unread. The library drops the length of such a request if it is chunked too, and closes
//! the connection behind it, so that nothing can hide there.

const NAME_BYTES_MAX: usize = 18;

#[derive(Debug, Default)]
pub(crate) struct HeadScan {
    /// The first bytes of the line.
    start: [u8; NAME_BYTES_MAX],
    line_bytes: usize,
    /// Of the request line looked at last, as far as it came in.
    request_line_bytes: usize,
    last: u8,
    in_fields: bool,
    lengths: usize,
    encodings: usize,
    lost: bool,
    /// For good.
    gave_up: bool,
    verdict: Option<&'static str>,
}

impl HeadScan {
    /// Whether bytes that come in now should be shown to `feed`.
    pub(crate) fn wants(&self, between_requests: bool) -> bool {
        !self.gave_up && (between_requests || !self.lost)
    }

    /// The rest of a body may come in where a head should: nothing that follows can be told apart.
    pub(crate) fn give_up(&mut self) {
        self.gave_up = true;
    }

    /// Why the connection cannot be trusted, once something was wrong.
    pub(crate) fn verdict(&self) -> Option<&'static str> {
        self.verdict
    }

    pub(crate) fn request_line_bytes(&self) -> usize {
        self.request_line_bytes
    }

    pub(crate) fn feed(&mut self, mut bytes: &[u8], between_requests: bool) {
        if !self.wants(between_requests) {
            return;
        }
        if self.lost && between_requests {
            *self = Self { verdict: self.verdict, ..Self::default() };
        }
        while !self.lost && !bytes.is_empty() {
            let Some(end) = bytes.iter().position(|b| *b == b'\n') else { return self.part(bytes) };
            self.part(&bytes[..end]);
            self.end_line();
            bytes = &bytes[end + 1..];
        }
    }

    fn part(&mut self, part: &[u8]) {
        let Some(last) = part.last() else { return };
        if self.line_bytes < NAME_BYTES_MAX {
            let n = part.len().min(NAME_BYTES_MAX - self.line_bytes);
            self.start[self.line_bytes..self.line_bytes + n].copy_from_slice(&part[..n]);
        }
        self.line_bytes += part.len();
        if !self.in_fields {
            self.request_line_bytes = self.line_bytes;
        }
        self.last = *last;
    }

    fn end_line(&mut self) {
        let line_bytes = std::mem::take(&mut self.line_bytes);
        if line_bytes == 0 || self.last != b'\r' {
            self.verdict = Some("a line ends without a carriage return");
        }
        let empty = line_bytes <= 1;
        match (self.in_fields, empty) {
            // Empty lines before a request line are allowed (RFC 9112 2.2).
            (false, empty) => self.in_fields = !empty,
            (true, true) => self.end_head(),
            (true, false) => {
                let start = &self.start[..line_bytes.min(NAME_BYTES_MAX)];
                self.lengths += usize::from(is_field(start, b"content-length"));
                self.encodings += usize::from(is_field(start, b"transfer-encoding"));
            }
        }
    }

    fn end_head(&mut self) {
        if self.lengths > 0 && self.encodings > 0 {
            self.verdict = Some("both Content-Length and Transfer-Encoding");
        }
        if self.lengths > 1 {
            self.verdict = Some("more than one Content-Length");
        }
        self.lost = self.lengths + self.encodings > 0;
        self.in_fields = false;
        (self.lengths, self.encodings) = (0, 0);
    }
}

fn is_field(line: &[u8], name: &[u8]) -> bool {
    line.get(name.len()) == Some(&b':') && line[..name.len()].eq_ignore_ascii_case(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(head: &str, ambiguous: bool) {
        // However the bytes are cut into reads.
        for cut in 0..head.len() {
            let mut scan = HeadScan::default();
            scan.feed(&head.as_bytes()[..cut], true);
            scan.feed(&head.as_bytes()[cut..], false);
            assert_eq!(scan.verdict().is_some(), ambiguous, "{head:?} cut at {cut}: {:?}", scan.verdict());
        }
    }

    #[test]
    fn ambiguous_heads_are_seen() {
        check("GET / HTTP/1.1\r\nHost: a\r\n\r\n", false);
        check("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n\r\n", false);
        check("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\na\nb\nc\n\n\n", false);
        check("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\n\r\n0\r\n\r\n", false);
        check("GET / HTTP/1.1\nHost: a\r\n\r\n", true);
        check("GET / HTTP/1.1\r\nHost: a\r\n\n", true);
        check("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\nHost: a\r\n\r\n", true);
        check("POST / HTTP/1.1\r\ncontent-LENGTH: 9\r\ntransfer-encoding: chunked\r\n\r\n", true);
        check("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n", true);
        check("POST / HTTP/1.1\r\nContent-Length: 9\r\nContent-Length: 9\r\n\r\n", true);
        check("GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", false);
    }

    #[test]
    fn the_next_head_is_looked_at_once_the_exchange_is_over() {
        let mut scan = HeadScan::default();
        scan.feed(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n\n", true);
        assert!(!scan.wants(false) && scan.wants(true));
        scan.feed(b"GET / HTTP/1.1\n\n", true);
        assert!(scan.verdict().is_some());
    }

    #[test]
    fn the_rest_of_a_body_is_not_taken_for_a_head() {
        let mut scan = HeadScan::default();
        scan.feed(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n", true);
        scan.give_up();
        scan.feed(b"a\nb\n", true);
        assert!(scan.verdict().is_none() && !scan.wants(true));
    }
}
