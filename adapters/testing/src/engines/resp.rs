//! As much of Redis' protocol as the launcher needs.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

/// Sends commands over a connection of their own and returns the last answer as text, that of an array with an
/// element a line. An answer that is an error is an error.
pub(super) async fn ask(to: SocketAddr, commands: &[&[&str]]) -> io::Result<String> {
    let answer = async {
        let mut stream = BufReader::new(TcpStream::connect(to).await?);
        let mut last = String::new();
        for command in commands {
            let mut request = format!("*{}\r\n", command.len());
            for word in *command {
                request += &format!("${}\r\n{word}\r\n", word.len());
            }
            stream.write_all(request.as_bytes()).await?;
            last = read(&mut stream).await?;
        }
        Ok(last)
    };
    timeout(PATIENCE, answer).await.map_err(io::Error::other)?
}

async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut lines = Vec::new();
    let mut missing = 1;
    while missing > 0 {
        missing -= 1;
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let Some((kind, rest)) = line.trim_end().split_at_checked(1) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        match kind {
            "+" | ":" => lines.push(rest.to_owned()),
            "$" => lines.push(read_bulk(stream, rest.parse().map_err(io::Error::other)?).await?),
            "*" => missing += rest.parse::<usize>().unwrap_or(0),
            _ => return Err(io::Error::other(rest.to_owned())),
        }
    }
    Ok(lines.join("\n"))
}

async fn read_bulk(stream: &mut BufReader<TcpStream>, length: i64) -> io::Result<String> {
    let Ok(length) = usize::try_from(length) else { return Ok(String::new()) };
    let mut bulk = vec![0; length + 2];
    stream.read_exact(&mut bulk).await?;
    bulk.truncate(length);
    Ok(String::from_utf8_lossy(&bulk).into_owned())
}
