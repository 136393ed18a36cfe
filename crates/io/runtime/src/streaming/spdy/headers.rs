//! Lists of headers: one zlib stream per direction and connection, begun with SPDY/3's dictionary.

use super::{Headers, MAX_HEADERS_BYTES, SpdyError};
use bytes::{Buf, BufMut, Bytes};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::sync::LazyLock;

/// The dictionary's first part: words, each led by its length (draft-mbelshe-httpbis-spdy-00, 2.6.10.1).
const WORDS: [&str; 65] = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];

/// Its second part.
const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
    Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 \
    Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept \
    Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
    application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,\
    sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dictionary = Vec::with_capacity(1423);
    for word in WORDS {
        put_text(&mut dictionary, word);
    }
    dictionary.extend_from_slice(TEXT.as_bytes());
    dictionary
});

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(text.as_bytes());
}

/// Reads the lists of one direction, in their order.
pub(super) struct Inflater(Decompress);

impl Inflater {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(super) fn read(&mut self, block: &[u8]) -> Result<Headers, SpdyError> {
        parse(self.inflate(block)?.into())
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, SpdyError> {
        let mut out = Vec::with_capacity(512);
        loop {
            let (read, written) = (self.0.total_in(), out.len());
            let result = self.0.decompress_vec(block, &mut out, FlushDecompress::Sync);
            let used = usize::try_from(self.0.total_in() - read).unwrap_or(usize::MAX);
            block = block.get(used..).ok_or(SpdyError::Compression)?;
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| SpdyError::Compression)?;
                }
                Err(_) | Ok(Status::StreamEnd) => return Err(SpdyError::Compression),
                Ok(_) if out.len() > MAX_HEADERS_BYTES => return Err(SpdyError::Headers),
                Ok(_) if out.len() == out.capacity() => out.reserve(out.len()),
                Ok(_) if block.is_empty() => return Ok(out),
                Ok(_) if used == 0 && out.len() == written => return Err(SpdyError::Compression),
                Ok(_) => {}
            }
        }
    }
}

/// Writes the lists of one direction, in their order.
pub(super) struct Deflater(Option<Compress>);

impl Deflater {
    pub(super) fn new() -> Self {
        Self(None)
    }

    pub(super) fn write(&mut self, headers: &Headers) -> Result<Vec<u8>, SpdyError> {
        if self.0.is_none() {
            let mut compress = Compress::new(Compression::default(), true);
            compress.set_dictionary(&DICTIONARY).map_err(|_| SpdyError::Compression)?;
            self.0 = Some(compress);
        }
        let compress = self.0.as_mut().ok_or(SpdyError::Compression)?;
        let list = list(headers);
        let mut rest = list.as_slice();
        let mut out = Vec::with_capacity(128 + list.len());
        loop {
            let read = compress.total_in();
            compress.compress_vec(rest, &mut out, FlushCompress::Sync).map_err(|_| SpdyError::Compression)?;
            let used = usize::try_from(compress.total_in() - read).unwrap_or(usize::MAX);
            rest = rest.get(used..).ok_or(SpdyError::Compression)?;
            if rest.is_empty() && out.len() < out.capacity() {
                return Ok(out);
            }
            out.reserve(out.capacity());
        }
    }
}

fn list(headers: &Headers) -> Vec<u8> {
    let mut list = Vec::new();
    list.put_u32(u32::try_from(headers.len()).unwrap_or(u32::MAX));
    for (name, value) in headers {
        put_text(&mut list, name);
        put_text(&mut list, value);
    }
    list
}

/// Names in upper case and names that come twice are errors (2.6.10).
fn parse(mut list: Bytes) -> Result<Headers, SpdyError> {
    let mut headers = Headers::new();
    let count = list.try_get_u32().map_err(|_| SpdyError::Headers)?;
    for _ in 0..count {
        let (name, value) = (text(&mut list)?, text(&mut list)?);
        if name.is_empty() || name.contains(|c: char| c.is_ascii_uppercase()) || headers.contains_key(&name) {
            return Err(SpdyError::Headers);
        }
        headers.insert(name, value);
    }
    if list.has_remaining() { Err(SpdyError::Headers) } else { Ok(headers) }
}

fn text(list: &mut Bytes) -> Result<String, SpdyError> {
    let length = list.try_get_u32().map_err(|_| SpdyError::Headers)? as usize;
    if length > list.len() {
        return Err(SpdyError::Headers);
    }
    String::from_utf8(list.split_to(length).into()).map_err(|_| SpdyError::Headers)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_dictionary_is_that_of_spdy_3() {
        assert_eq!(DICTIONARY.len(), 1423);
        assert_eq!(Compress::new(Compression::default(), true).set_dictionary(&DICTIONARY).unwrap(), 0xe3c6_a7c2);
    }

    #[test]
    fn what_is_written_is_read_in_the_same_order() {
        let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
        let long: String = (0..20_000u32).map(|n| char::from(b'a' + u8::try_from(n * n % 23).unwrap())).collect();
        let lists = [
            headers(&[]),
            headers(&[("port", "80"), ("requestid", "0"), ("streamtype", "data")]),
            headers(&[("port", "80"), ("requestid", "0"), ("streamtype", "error")]),
            headers(&[("long", &long)]),
            headers(&[("several", "1\0two")]),
        ];
        for list in lists {
            let block = deflater.write(&list).unwrap();
            assert_eq!(inflater.read(&block), Ok(list));
        }
    }

    #[test]
    fn malformed_lists_are_refused() {
        let cases: [(&str, &[u8]); 8] = [
            ("nothing", b""),
            ("a count and no header", b"\0\0\0\x01"),
            ("a name cut short", b"\0\0\0\x01\0\0\0\x05ab"),
            ("no value", b"\0\0\0\x01\0\0\0\x01a"),
            ("an upper-case name", b"\0\0\0\x01\0\0\0\x01A\0\0\0\0"),
            ("an empty name", b"\0\0\0\x01\0\0\0\0\0\0\0\0"),
            ("a name twice", b"\0\0\0\x02\0\0\0\x01a\0\0\0\0\0\0\0\x01a\0\0\0\0"),
            ("more than the count", b"\0\0\0\0x"),
        ];
        for (what, list) in cases {
            assert_eq!(parse(Bytes::from_static(list)), Err(SpdyError::Headers), "{what}");
        }
    }

    #[test]
    fn compressed_nonsense_and_bombs_are_refused() {
        assert_eq!(Inflater::new().read(b"no zlib at all"), Err(SpdyError::Compression));
        let bomb = headers(&[("bomb", &"x".repeat(10 * MAX_HEADERS_BYTES))]);
        let block = Deflater::new().write(&bomb).unwrap();
        assert!(block.len() < 4096, "{}", block.len());
        assert_eq!(Inflater::new().read(&block), Err(SpdyError::Headers));
    }
}
