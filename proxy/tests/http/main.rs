//! HTTP through the engine, with peers scripted byte by byte and frame by frame, and with real libraries.

mod transparency;
mod world;
