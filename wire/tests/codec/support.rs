//! What the tests share: probes written with `⏎` for CR LF, and a whole stream read as messages.

use weft_wire::h1::{
    BodyDecoder, BodyEncoder, BodyLength, Connection, Fields, Forward, Piece, Refused, RequestHead, RequestKind,
    ResponseHead, Scan, Version,
};

/// `⏎` stands for CR LF.
pub fn bytes(probe: &str) -> Vec<u8> {
    probe.replace('⏎', "\r\n").into_bytes()
}

/// The head at the front of a probe, which must be complete.
pub fn request(probe: &str) -> Result<RequestHead, Refused> {
    RequestHead::parse(&bytes(probe), &mut Scan::default()).map(|head| head.expect("a complete head").0)
}

/// The response head at the front of a probe.
pub fn response(probe: &str) -> Result<ResponseHead, Refused> {
    response_to(RequestKind::Other, probe)
}

/// The same, for the answer to a certain request.
pub fn response_to(kind: RequestKind, probe: &str) -> Result<ResponseHead, Refused> {
    ResponseHead::parse(&bytes(probe), kind, &mut Scan::default()).map(|head| head.expect("a complete head").0)
}

/// A whole request as the codec understands it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    pub method: String,
    pub target: String,
    pub fields: Vec<(String, Vec<u8>)>,
    pub length: BodyLength,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, Vec<u8>)>,
}

pub fn pairs(fields: &Fields) -> Vec<(String, Vec<u8>)> {
    fields
        .iter()
        .map(|field| (field.name.to_owned(), field.value.to_vec()))
        .collect()
}

/// How a stream ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// Between two messages.
    Clean,
    /// In the middle of a head or a body.
    Cut,
    /// The guard refused.
    Refused(Refused),
    /// The message before said that it is the last.
    Close,
    /// An upgrade or CONNECT: what follows is not HTTP until the server has answered.
    Tunnel,
}

/// Reads a client's stream, which arrives in pieces of these sizes (the last one again and again).
pub fn read_requests(stream: &[u8], sizes: &[usize]) -> (Vec<Message>, Ended) {
    let mut messages: Vec<Message> = Vec::new();
    let mut source = Source {
        stream,
        sizes,
        turn: 0,
        arrived: 0,
        used: 0,
    };
    let mut scan = Scan::default();
    loop {
        let (head, length) = match RequestHead::parse(source.unread(), &mut scan) {
            Err(refused) => return (messages, Ended::Refused(refused)),
            Ok(Some(found)) => found,
            Ok(None) if source.more() => continue,
            // The end of the stream: look once more, since not every piece was worth a parse.
            Ok(None) => {
                let ended = match RequestHead::parse(source.unread(), &mut Scan::default()) {
                    Err(refused) => Ended::Refused(refused),
                    Ok(_) if source.unread().is_empty() => Ended::Clean,
                    Ok(_) => Ended::Cut,
                };
                return (messages, ended);
            }
        };
        source.used += length;
        let mut message = Message {
            method: head.method().to_owned(),
            target: head.target().to_owned(),
            fields: pairs(head.fields()),
            length: head.body(),
            body: Vec::new(),
            trailers: Vec::new(),
        };
        let end = read_body(&mut source, &mut BodyDecoder::request(head.body()), &mut message);
        messages.push(message);
        match end {
            Err(refused) => return (messages, Ended::Refused(refused)),
            Ok(false) => return (messages, Ended::Cut),
            Ok(true) if head.is_connect() || head.upgrade().is_some() => return (messages, Ended::Tunnel),
            Ok(true) if !head.keep_alive() => return (messages, Ended::Close),
            Ok(true) => {}
        }
    }
}

fn read_body(source: &mut Source<'_>, decoder: &mut BodyDecoder, message: &mut Message) -> Result<bool, Refused> {
    loop {
        let (used, piece) = decoder.step(source.unread())?;
        match piece {
            Piece::Data(data) => {
                assert!(!data.is_empty(), "data is never empty");
                message.body.extend_from_slice(data);
            }
            Piece::Trailers(fields) => message.trailers = pairs(&fields),
            Piece::End => {
                source.used += used;
                return Ok(true);
            }
            Piece::NeedMore => {
                assert_eq!(
                    used,
                    source.unread().len(),
                    "everything is consumed before more is asked for"
                );
                source.used += used;
                if !source.more() {
                    return Ok(decoder.close());
                }
                continue;
            }
        }
        source.used += used;
    }
}

/// The body of one message after its head, all at once.
pub fn read_whole_body(decoder: &mut BodyDecoder, stream: &[u8]) -> Result<(Message, bool), Refused> {
    let mut message = Message {
        method: String::new(),
        target: String::new(),
        fields: Vec::new(),
        length: BodyLength::None,
        body: Vec::new(),
        trailers: Vec::new(),
    };
    let sizes = [stream.len().max(1)];
    let mut source = Source {
        stream,
        sizes: &sizes,
        turn: 0,
        arrived: 0,
        used: 0,
    };
    let complete = read_body(&mut source, decoder, &mut message)?;
    Ok((message, complete))
}

struct Source<'a> {
    stream: &'a [u8],
    sizes: &'a [usize],
    turn: usize,
    arrived: usize,
    used: usize,
}

impl<'a> Source<'a> {
    fn unread(&self) -> &'a [u8] {
        &self.stream[self.used..self.arrived]
    }

    /// Lets the next piece arrive.
    fn more(&mut self) -> bool {
        let size = self
            .sizes
            .get(self.turn)
            .or(self.sizes.last())
            .copied()
            .unwrap_or(usize::MAX);
        self.turn += 1;
        let before = self.arrived;
        self.arrived = self.arrived.saturating_add(size.max(1)).min(self.stream.len());
        self.arrived > before
    }
}

/// One request as it goes on to a server: its bytes as the codec writes them, and what it is.
#[derive(Debug)]
pub struct Forwarded {
    pub bytes: Vec<u8>,
    pub message: Message,
    pub keep_alive: bool,
    /// The target without scheme and authority.
    pub path: String,
    /// A tunnel, if the server agrees.
    pub is_connect: bool,
}

/// What a proxy makes of a client's stream: the requests that go on, and how it ended. An incomplete one does not go on.
pub fn forward(stream: &[u8]) -> (Vec<Forwarded>, Ended) {
    let (messages, ended) = read_requests(stream, &[usize::MAX]);
    let mut rest = stream;
    let mut forwarded = Vec::new();
    for message in messages {
        let Ok(Some((head, used))) = RequestHead::parse(rest, &mut Scan::default()) else {
            break;
        };
        let mut out = bytes::BytesMut::new();
        let connection = match (head.keep_alive(), head.version()) {
            (false, _) => Connection::Close,
            (true, Version::H10) => Connection::KeepAlive,
            (true, Version::H11) => Connection::Unsaid,
        };
        head.encode(
            &Forward {
                connection,
                ..Forward::default()
            },
            &mut out,
        );
        let (mut decoder, mut encoder) = (BodyDecoder::request(head.body()), BodyEncoder::new(head.body()));
        rest = &rest[used..];
        let mut trailers = Box::new(Fields::default());
        while let Ok((used, piece)) = decoder.step(rest) {
            rest = &rest[used..];
            match piece {
                Piece::Data(data) => encoder.data(data, &mut out).expect("the length is right"),
                Piece::Trailers(fields) => trailers = fields,
                Piece::NeedMore | Piece::End => break,
            }
        }
        if !decoder.is_end() {
            break;
        }
        encoder.finish_with(&trailers, &mut out).expect("the length is right");
        forwarded.push(Forwarded {
            bytes: out.to_vec(),
            keep_alive: head.keep_alive(),
            path: head.path_and_query().to_owned(),
            is_connect: head.is_connect(),
            message,
        });
    }
    (forwarded, ended)
}
