// SPDX-License-Identifier: BSD-3-Clause
// get HOST PATH: a request over rustls, whose webpki is the strictest verifier of the matrix. Trust is what SSL_CERT_FILE names, as
// rustls-native-certs has it.
use std::convert::TryFrom;
use std::io::{BufReader, Read, Write};
use std::sync::Arc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let bundle = std::env::var("SSL_CERT_FILE")?;
    let mut roots = rustls::RootCertStore::empty();
    let (good, _) = roots.add_parsable_certificates(&rustls_pemfile::certs(&mut BufReader::new(std::fs::File::open(&bundle)?))?);
    if good == 0 {
        return Err(format!("no certificate in {}", bundle).into());
    }
    let mut config = rustls::ClientConfig::builder().with_safe_defaults().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = rustls::ServerName::try_from(args[1].as_str())?;
    let mut conn = rustls::ClientConnection::new(Arc::new(config), name)?;
    let mut sock = std::net::TcpStream::connect((args[1].as_str(), 443))?;
    let mut tls = rustls::Stream::new(&mut conn, &mut sock);
    write!(tls, "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", args[2], args[1])?;
    let mut body = Vec::new();
    tls.read_to_end(&mut body)?; // an end without close_notify is an error here
    eprintln!("{:?} {:?}", conn.protocol_version(), conn.alpn_protocol().map(String::from_utf8_lossy));
    std::io::stdout().write_all(&body)?;
    Ok(())
}
