//! What `std` would bring, without WASI: an allocator, a panic handler, and the allocation for the host.

use alloc::vec::Vec;
use core::mem::ManuallyDrop;

use crate::bindings::guest::evenkeel::plugin::log::Level;

#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// Says what happened, then traps: the forwarder shows the message as the reason of the fault.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    crate::log::write(Level::Fatal, format_args!("{info}"));
    core::arch::wasm32::unreachable()
}

/// Makes room for the arguments that the host hands over; the bindings free it.
#[derive(Debug)]
pub struct Arguments;

impl crate::bindings::runtime::Guest for Arguments {
    /// Traps without a word where there is no memory left: nothing may be logged here.
    fn realloc(_: u32, old_length: u32, align: u32, length: u32) -> u32 {
        let address = match (old_length, length, align) {
            (0, 0, align) => align.try_into().ok(),
            (0, length, 1) => room::<u8>(length),
            (0, length, 2) => room::<u16>(length),
            (0, length, 4) => room::<u32>(length),
            (0, length, 8) => room::<u64>(length),
            // Only text that changes its encoding on the way ever grows, and text here is UTF-8 on both sides.
            (_, _, _) => None,
        };
        address
            .and_then(|address| u32::try_from(address).ok())
            .unwrap_or_else(|| core::arch::wasm32::unreachable())
    }
}

/// Room of `length` bytes, in the shape in which a list of items as large as `T` is freed.
fn room<T>(length: u32) -> Option<usize> {
    let mut items = ManuallyDrop::new(Vec::<T>::new());
    items.try_reserve_exact(usize::try_from(length).ok()?.div_ceil(size_of::<T>())).ok()?;
    Some(items.as_mut_ptr().expose_provenance())
}
