use super::*;

const MADE: Create = Create {
    flags: 0,
    slot: 0,
    area: 0x7000_0000_0000,
    area_size: 128 * 1025,
    slot_size: 128,
    slot_offset: 128,
    features: auto_lock::FEATURE_PARK,
    reserved: 0,
};

#[test]
fn an_area_must_be_as_we_know_it() {
    assert_eq!(slots_in(&MADE), Some(1024));
    let many = Create {
        area_size: 1 << 30,
        ..MADE
    };
    assert_eq!(slots_in(&many), Some(SLOTS_MAX));
    for wrong in [
        Create { area: 0, ..MADE },
        Create { area: 8, ..MADE },
        Create {
            area_size: 127,
            ..MADE
        },
        Create {
            area_size: 255,
            ..MADE
        },
        Create {
            slot_size: 0,
            ..MADE
        },
        Create {
            slot_size: 64,
            ..MADE
        },
        Create {
            slot_size: 200,
            ..MADE
        },
        Create {
            slot_offset: 32,
            ..MADE
        },
        Create {
            slot_offset: 100,
            ..MADE
        },
        Create { slot: 1024, ..MADE },
        Create {
            slot: u32::MAX,
            ..MADE
        },
    ] {
        assert_eq!(slots_in(&wrong), None, "{wrong:?}");
    }
    // A later version may have larger ones.
    let larger = Create {
        slot_size: 256,
        ..MADE
    };
    assert_eq!(slots_in(&larger), Some(512));
}

#[test]
fn each_refusal_is_found_again_by_its_number() {
    for refusal in Refusal::ALL {
        assert_eq!(Refusal::by_number(refusal as u8 + 1), Some(refusal));
    }
    assert_eq!(Refusal::by_number(0), None);
    assert_eq!(Refusal::by_number(9), None);
}

#[test]
fn a_slot_speaks_of_the_owner_alone() {
    // SAFETY: zero is a valid slot.
    let slot: Slot = unsafe { core::mem::zeroed() };
    slot.tid.store(7, Relaxed);
    for (state, says) in [
        (auto_lock::RUNNING, HolderState::Running),
        (auto_lock::NOT_RUNNING, HolderState::NotRunning),
        (0, HolderState::Unknown),
        (77, HolderState::Unknown),
    ] {
        slot.state.store(state, Relaxed);
        assert_eq!(state_in(&slot, 7), says);
        for other in [0, 8, -7, i32::MIN, i32::MAX] {
            assert_eq!(state_in(&slot, other), HolderState::Unknown);
        }
    }
    slot.tid.store(0, Relaxed);
    slot.state.store(auto_lock::RUNNING, Relaxed);
    assert_eq!(state_in(&slot, 0), HolderState::Unknown, "nobody's");
}

#[test]
fn without_an_area_nothing_is_known_and_nothing_is_touched() {
    assert!(!is_on());
    enroll();
    assert_eq!(own(), (0, 0));
    let word = autolock_abi::sync::AtomicU32::new(1);
    assert!(!arm(&word, Parking::until(0, 2), 0, None));
    disarm();
    assert_eq!(parks(), 0);
    for place in [0, 1, 77, u16::MAX] {
        let holder = Holder {
            tid: tcb::tid(),
            place,
        };
        assert_eq!(state_of(holder), HolderState::Unknown);
    }
}

#[test]
fn a_park_ends_by_the_deadline() {
    assert_eq!(timeout_us(0, None), Some(0));
    assert_eq!(timeout_us(4_000_000, None), Some(4_000));
    assert_eq!(timeout_us(4_000_000, Some(1_000_000)), Some(1_000));
    assert_eq!(timeout_us(0, Some(5_000_000)), Some(5_000));
    assert_eq!(timeout_us(4_000_000, Some(999)), None);
    assert_eq!(timeout_us(0, Some(u64::MAX)), Some(u32::MAX));
}

#[test]
fn what_a_thread_remembers_is_its_own() {
    set_own(3, 9);
    assert_eq!(own(), (3, 9));
    std::thread::spawn(|| assert_eq!(own(), (0, 0)))
        .join()
        .expect("the thread's own check");
    set_own(REFUSED, 9);
    assert_eq!(own().0 as u16, 0, "no place");
    set_own(0, 0);
}
