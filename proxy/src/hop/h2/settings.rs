//! The settings of every HTTP/2 connection of weft, on either side: from limits, and each of them set.

use std::time::Duration;

use weft_proto::limits;

/// How long a stream that weft has reset is remembered, so that frames which were under way do no harm.
const RESET_REMEMBERED: Duration = Duration::from_secs(5);
/// HPACK's table (RFC 7541 4.2), in each direction.
const HEADER_TABLE: u32 = 4096;

/// HTTP/2's own integers have 31 bits.
fn number(limit: usize) -> u32 {
    u32::try_from(limit).expect("limits of HTTP/2 fit into 31 bits")
}

macro_rules! both_sides {
    ($builder:expr) => {
        $builder
            .initial_window_size(number(limits::H2_STREAM_WINDOW))
            .initial_connection_window_size(number(limits::H2_CONNECTION_WINDOW))
            .max_frame_size(number(limits::H2_FRAME))
            .max_header_list_size(number(limits::H2_HEADER_LIST))
            .header_table_size(HEADER_TABLE)
            .max_send_buffer_size(limits::H2_SEND_BUFFER)
            .max_concurrent_reset_streams(limits::H2_RESET_STREAMS)
            .reset_stream_duration(RESET_REMEMBERED)
            .max_pending_accept_reset_streams(limits::H2_PENDING_RESET_STREAMS)
            // `None` would turn the guard off (hyperium/hyper#3782).
            .max_local_error_reset_streams(Some(limits::H2_LOCAL_RESET_STREAMS))
            // Small frames of a stream that is read slowly must not end the connection for all.
            .data_frame_budget(limits::H2_CONNECTION_WINDOW)
    };
}

/// The client's side of a new HTTP/2 connection.
pub fn client_builder() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    both_sides!(builder)
        .enable_push(false)
        // Until the server's SETTINGS are there.
        .initial_max_send_streams(limits::H2_STREAMS_USED)
        // Pushed streams, which are off as well.
        .max_concurrent_streams(0);
    builder
}

/// The server's side of a new HTTP/2 connection. Extended CONNECT is offered: both to wefts and to clients (RFC 8441).
pub fn server_builder() -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    both_sides!(builder)
        .max_concurrent_streams(number(limits::H2_STREAMS))
        .enable_connect_protocol();
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every field of h2's builders, and what it must be. A field that is new there is missing here, and fails the test.
    fn check(builder: &str, own: &[(&str, String)]) {
        let mut expected = vec![
            ("reset_stream_duration", "5s".to_owned()),
            ("reset_stream_max", limits::H2_RESET_STREAMS.to_string()),
            (
                "pending_accept_reset_stream_max",
                limits::H2_PENDING_RESET_STREAMS.to_string(),
            ),
            (
                "initial_target_connection_window_size",
                format!("Some({})", limits::H2_CONNECTION_WINDOW),
            ),
            ("max_send_buffer_size", limits::H2_SEND_BUFFER.to_string()),
            (
                "local_max_error_reset_streams",
                format!("Some({})", limits::H2_LOCAL_RESET_STREAMS),
            ),
            (
                "data_frame_budget",
                format!("Configured({})", limits::H2_CONNECTION_WINDOW),
            ),
            ("header_table_size", HEADER_TABLE.to_string()),
            ("initial_window_size", limits::H2_STREAM_WINDOW.to_string()),
            ("max_frame_size", limits::H2_FRAME.to_string()),
            ("max_header_list_size", limits::H2_HEADER_LIST.to_string()),
        ];
        expected.extend(own.iter().cloned());
        for (field, value) in &expected {
            assert!(
                builder.contains(&format!("{field}: {value}")),
                "{field}: {value} is not in {builder}"
            );
        }
        let fields = builder.matches(": ").count();
        // `settings` and its `flags` are the two that hold others.
        assert_eq!(fields, expected.len() + 2, "{builder}");
    }

    #[test]
    fn t15_every_setting_of_h2_is_set() {
        let client = [
            ("initial_max_send_streams", limits::H2_STREAMS_USED.to_string()),
            ("stream_id", "StreamId(1)".to_owned()),
            ("enable_push", "0".to_owned()),
            ("max_concurrent_streams", "0".to_owned()),
        ];
        check(&format!("{:?}", client_builder()), &client);
        let server = [
            ("max_concurrent_streams", limits::H2_STREAMS.to_string()),
            ("enable_connect_protocol", "1".to_owned()),
        ];
        check(&format!("{:?}", server_builder()), &server);
    }
}
