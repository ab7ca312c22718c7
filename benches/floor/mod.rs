//! The least that an admission over HTTPS can cost: a program that does nothing else, named by `FLOOR_BINARY`. It is started with a
//! certificate, a key in PKCS #8, a port and `http1`, and answers a review with a patch on whatever path.

use std::net::SocketAddr;
use std::process::{Child, Command};

use super::stand_in::{CpuTime, free_addresses};

/// The program, ended with this value.
pub struct Floor {
    process: Child,
    pub address: SocketAddr,
    folder: std::path::PathBuf,
}

impl Floor {
    /// Starts it, if the environment names one.
    pub fn start() -> Option<Self> {
        let binary = std::env::var_os("FLOOR_BINARY")?;
        let folder = std::env::temp_dir().join(format!("agent-tracing-floor-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
        std::fs::write(&certificate, signed.cert.pem()).unwrap();
        std::fs::write(&key, signed.signing_key.serialize_pem()).unwrap();
        let [address] = free_addresses();
        let mut command = Command::new(binary);
        let process = command.arg(certificate).arg(key).arg(address.port().to_string()).arg("http1").spawn().unwrap();
        Some(Self { process, address, folder })
    }

    pub fn cpu(&self) -> CpuTime {
        CpuTime::of(self.process.id())
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
