//! `weft-injector serve`: see [`weft_injector::app`].

use std::process::ExitCode;

use clap::Parser as _;
use weft_injector::{
    app,
    arguments::{Arguments, Command},
};

fn main() -> ExitCode {
    weft_service::tls::install_provider();
    let Command::Serve(arguments) = Arguments::parse().command;
    match app::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
