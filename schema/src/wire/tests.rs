//! What goes into a message comes out of it; what is broken is refused.

use super::*;
use crate::ids::JobId;

#[test]
fn a_message_is_read_at_any_address() {
    let bytes = to_bytes(&JobId(7 << 64 | 9)).unwrap();
    for shift in 0..8 {
        let shifted = [vec![0; shift], bytes.clone()].concat();
        assert_eq!(from_bytes::<JobId>(&shifted[shift..]).unwrap(), JobId(7 << 64 | 9));
    }
}
