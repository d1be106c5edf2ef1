//! `weft-controller`: reads flags, runs, ends at SIGTERM. Exit status 2: the flags are wrong; 1: something failed.

use std::process::ExitCode;

use clap::Parser;
use weft_controller::{
    app,
    config::{Config, Raw},
};

fn main() -> ExitCode {
    weft_service::tls::install_provider();
    let config = match Config::new(Raw::parse()) {
        Ok(config) => config,
        Err(mistakes) => {
            for mistake in mistakes {
                eprintln!("weft-controller: {mistake}");
            }
            eprintln!("weft-controller: --help lists the flags");
            return ExitCode::from(2);
        }
    };
    match weft_service::log::start() {
        Ok(_) => {}
        Err(error) => {
            eprintln!("weft-controller: {error}");
            return ExitCode::from(2);
        }
    }
    let ran = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(app::run(config)));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the controller ends");
            eprintln!("weft-controller: {error:#}");
            ExitCode::FAILURE
        }
    }
}
