//! Which program or library an address is in, without a lock: by glibc's `_dl_find_object` (2.35), which is async-signal-safe.
//!
//! With an older glibc no address is in any module: stacks are then addresses without names.
//!
//! `_dl_find_object` knows modules with holes between their segments by the segment. Such are executables to which a segment was appended (patchelf, use-this-glibc), so
//! the executable's extent is taken from the program headers that the kernel names.
//!
//! What is read of a module is its ELF header and what the program headers say is loaded and readable, never beyond. A module must not be closed
//! while it is looked at: return addresses on the own stack keep theirs open, as they do for the exceptions that unwind through them.
//!
//! May touch: mapped ELF headers, notes and call frame information, the loader's `link_map`; `/proc/self/exe` and `dlsym` at start.

pub mod elf;

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::MaybeUninit;
use core::sync::atomic::{
    AtomicPtr, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use autolock_capture::layout::PATH;

/// `struct dl_find_object`, `<dlfcn.h>`, on x86-64.
#[repr(C)]
struct DlFindObject {
    flags: u64,
    map_start: *mut c_void,
    map_end: *mut c_void,
    link_map: *mut LinkMap,
    eh_frame: *mut c_void,
    reserved: [u64; 7],
}

/// Where the executable is. Zeros until `start`.
struct Extent {
    start: AtomicUsize,
    end: AtomicUsize,
    base: AtomicUsize,
    /// Of its program headers.
    headers: AtomicUsize,
    /// In bytes.
    headers_length: AtomicUsize,
}

static EXTENT: Extent = Extent {
    start: AtomicUsize::new(0),
    end: AtomicUsize::new(0),
    base: AtomicUsize::new(0),
    headers: AtomicUsize::new(0),
    headers_length: AtomicUsize::new(0),
};

/// The part of `struct link_map`, `<link.h>`, that never changes.
#[repr(C)]
struct LinkMap {
    addr: usize,
    name: *const c_char,
}

const _: () = {
    assert!(size_of::<DlFindObject>() == 96);
    assert!(core::mem::offset_of!(DlFindObject, link_map) == 24);
    assert!(core::mem::offset_of!(DlFindObject, eh_frame) == 32);
    assert!(core::mem::offset_of!(LinkMap, name) == 8);
};

type FindObject = unsafe extern "C" fn(*mut c_void, *mut DlFindObject) -> c_int;

/// `_dl_find_object`; null if there is none.
static FIND: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());
/// The executable's entry point: which module it is.
static ENTRY: AtomicUsize = AtomicUsize::new(0);
static EXECUTABLE: Executable = Executable {
    path: UnsafeCell::new([0; PATH]),
    length: AtomicUsize::new(0),
};

/// The executable's path, which its `link_map` does not have.
struct Executable {
    path: UnsafeCell<[u8; PATH]>,
    length: AtomicUsize,
}

// SAFETY: `path` is written once, by `start`, before `length` says that there is something to read.
unsafe impl Sync for Executable {}

/// The module that an address is in. Valid as long as the module is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// First address of its mapping.
    pub start: usize,
    /// The address behind its last.
    pub end: usize,
    /// What is added to the addresses in its file.
    pub base: usize,
    /// Address of its `.eh_frame_hdr`; 0 if it has none.
    pub eh_frame_hdr: usize,
    name: *const c_char,
}

/// What is known of a module besides addresses.
#[derive(Clone, Copy, Debug)]
pub struct Description<'a> {
    /// Its path as the loader knows it, without the NUL, at most `PATH` bytes; the executable's is absolute. Empty if unknown.
    pub path: &'a [u8],
    /// Its GNU build id, at most 32 bytes; empty if it has none.
    pub build_id: &'a [u8],
}

/// Looks up what [`find`] and [`describe`] need. Called once, from the preload's constructor.
pub fn start() {
    // SAFETY: a NUL-terminated name; dlsym has no other requirement.
    let find = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_dl_find_object".as_ptr()) };
    FIND.store(find, Relaxed);
    // SAFETY: getauxval(3) has no requirement.
    let entry = unsafe { libc::getauxval(libc::AT_ENTRY) };
    ENTRY.store(entry as usize, Relaxed);
    find_extent(entry as usize);
    if EXECUTABLE.length.load(Relaxed) == 0 {
        let path = EXECUTABLE.path.get();
        // SAFETY: room for PATH bytes, which nobody reads yet.
        let length =
            unsafe { libc::readlink(c"/proc/self/exe".as_ptr(), path.cast::<c_char>(), PATH) };
        // Release: pairs with the Acquire in `path`.
        EXECUTABLE
            .length
            .store(usize::try_from(length).unwrap_or(0).min(PATH), Release);
    }
}

/// Notes where the executable is, which has its entry point there.
fn find_extent(entry: usize) {
    let Some(found) = find(entry) else { return };
    // SAFETY: getauxval(3) has no requirement.
    let [headers, count, size] =
        [libc::AT_PHDR, libc::AT_PHNUM, libc::AT_PHENT].map(|key| unsafe { libc::getauxval(key) });
    let length = (count * size) as usize;
    if headers == 0 || size as usize != elf::PROGRAM_HEADER {
        return;
    }
    EXTENT.headers.store(headers as usize, Relaxed);
    EXTENT.headers_length.store(length, Relaxed);
    EXTENT.base.store(found.base, Relaxed);
    let (mut start, mut end) = (usize::MAX, 0);
    if let Some(image) = elf::Image::of_executable(&found) {
        for segment in image.loaded() {
            start = start.min(segment.start & !(elf::PAGE - 1));
            end = end.max(segment.end);
        }
    }
    if (start..end).contains(&entry) {
        EXTENT.start.store(start, Relaxed);
        EXTENT.end.store(end, Relaxed);
    }
}

/// Whether an address of the module with this base is the executable's; its extent then.
fn extent(base: usize, address: usize) -> Option<core::ops::Range<usize>> {
    let extent = EXTENT.start.load(Relaxed)..EXTENT.end.load(Relaxed);
    (EXTENT.base.load(Relaxed) == base && extent.contains(&address)).then_some(extent)
}

/// Whether a module is the executable.
#[must_use]
pub fn is_executable(found: &Found) -> bool {
    extent(found.base, found.start).is_some()
}

/// The module that maps `address`.
#[must_use]
pub fn find(address: usize) -> Option<Found> {
    let find = FIND.load(Relaxed);
    if find.is_null() {
        return None;
    }
    // SAFETY: the function of this name, which has this signature.
    let find = unsafe { core::mem::transmute::<*mut c_void, FindObject>(find) };
    let mut object = MaybeUninit::<DlFindObject>::uninit();
    let pointer = core::ptr::without_provenance_mut(address);
    // SAFETY: it takes any address, and a place for the result.
    if unsafe { find(pointer, object.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: 0 means that the result was filled in.
    let object = unsafe { object.assume_init() };
    if object.link_map.is_null() {
        return None;
    }
    // SAFETY: the link_map of a loaded module, whose first two fields never change.
    let link_map = unsafe { &*object.link_map };
    let range = object.map_start.addr()..object.map_end.addr();
    let range = extent(link_map.addr, address).unwrap_or(range);
    Some(Found {
        start: range.start,
        end: range.end,
        base: link_map.addr,
        eh_frame_hdr: object.eh_frame.addr(),
        name: link_map.name,
    })
}

/// Path and build id. For a module that is entered into a capture: not short.
#[must_use]
pub fn describe(found: &Found) -> Description<'_> {
    Description {
        path: path(found),
        build_id: elf::Image::of(found).map_or(&[], |image| image.build_id()),
    }
}

fn path(found: &Found) -> &[u8] {
    let name = if found.name.is_null() {
        &[]
    } else {
        // SAFETY: the loader's string, which lives as long as the module.
        unsafe { CStr::from_ptr(found.name) }.to_bytes()
    };
    let entry = ENTRY.load(Relaxed);
    if !name.is_empty() || !(found.start..found.end).contains(&entry) {
        return name.get(..PATH).unwrap_or(name);
    }
    // Acquire: pairs with the Release in `start`.
    let length = EXECUTABLE.length.load(Acquire);
    // SAFETY: written before `length` was, and never again.
    let path = unsafe { &*EXECUTABLE.path.get() };
    path.get(..length).unwrap_or(&[])
}
