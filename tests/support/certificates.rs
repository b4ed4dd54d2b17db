//! Certificates made on the spot by openssl.

use std::path::Path;
use std::process::Command;

/// Writes `ca.pem`, and of it `server.pem` for a subject name (`DNS:…`, `IP:…`) and `client.pem`, each with its key.
pub fn certificates(dir: &Path, authority: &str, server_name: &str) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(dir, &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN={authority}"));
    for (name, san) in [("server", server_name), ("client", "DNS:client")] {
        openssl(dir, &format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        std::fs::write(dir.join("ext"), format!("subjectAltName={san}\n")).unwrap();
        let from = format!("x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial");
        openssl(dir, &format!("{from} -out {name}.pem -days 2 -extfile ext"));
    }
}

/// Replaces `server.pem` by one for `server.csr` that is valid from the start of one year to that of another.
pub fn dated_server_certificate(dir: &Path, (from, to): (&str, &str)) {
    let config = "[ca]\ndefault_ca=d\n[d]\ndatabase=index\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\n\
                  unique_subject=no\npolicy=p\n[p]\ncommonName=supplied\n";
    std::fs::write(dir.join("ca.conf"), config).unwrap();
    std::fs::write(dir.join("index"), "").unwrap();
    std::fs::write(dir.join("ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let dates = format!("-startdate {from}0101000000Z -enddate {to}0101000000Z");
    let files = "-in server.csr -out server.pem -cert ca.pem -keyfile ca.key -extfile ext -create_serial";
    openssl(dir, &format!("ca -batch -notext -config ca.conf {dates} {files}"));
}

fn openssl(dir: &Path, arguments: &str) {
    let done = Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
