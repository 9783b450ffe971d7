//! VP8 by libvpx: an encoder with realtime settings and a decoder, each a safe value over its C context.
//!
//! Nothing that comes from outside can break memory here: pictures carry their own sizes, and decoded planes are
//! handed out as slices cut to what libvpx says it has drawn. A damaged frame is an error, never a panic.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::raw::{c_int, c_uint, c_ulong};

use vpx_sys::vp8e_enc_control_id::{
    VP8E_SET_CPUUSED, VP8E_SET_MAX_INTRA_BITRATE_PCT, VP8E_SET_STATIC_THRESHOLD,
};
use vpx_sys::{vpx_codec_ctx_t, vpx_codec_err_t, vpx_codec_err_to_string, vpx_image_t};

use crate::picture::Picture;
use crate::size::PictureSize;

/// libvpx refused: which call, and its own word for why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("libvpx: {call}: {why}")]
pub struct VpxError {
    pub call: &'static str,
    pub why: String,
}

/// One encoded frame; its bytes are good until the next call of the encoder.
#[derive(Clone, Copy, Debug)]
pub struct EncodedFrame<'a> {
    pub data: &'a [u8],
    pub key: bool,
}

/// A VP8 encoder for pictures of one size. It makes key frames only when asked to (the first is one by itself).
#[derive(Debug)]
pub struct Encoder {
    context: Context,
    width: usize,
    height: usize,
    frame_ticks: c_ulong,
}

impl Encoder {
    /// Realtime settings: constant bit rate, no lookahead, the fast end of the speed scale, and one thread: libvpx's
    /// threads wait for each other by spinning, which cost twenty times the work at 720p on two busy cores.
    ///
    /// # Errors
    /// What libvpx says.
    pub fn new(size: PictureSize) -> Result<Self, VpxError> {
        let mut config = MaybeUninit::zeroed();
        // SAFETY: `vpx_codec_vp8_cx` returns a static; on success the second call fills the whole struct, which is
        // plain data and was zeroed (a valid value for each of its fields).
        let mut config = unsafe {
            let code =
                vpx_sys::vpx_codec_enc_config_default(vpx_sys::vpx_codec_vp8_cx(), config.as_mut_ptr(), 0);
            check("default configuration", code)?;
            config.assume_init()
        };
        let bitrate_kbps = (size.bitrate_bps / 1000).max(20);
        config.g_w = c_uint::from(size.width);
        config.g_h = c_uint::from(size.height);
        config.g_threads = 1;
        config.g_timebase.num = 1;
        config.g_timebase.den = 90_000;
        config.g_error_resilient = 0;
        config.g_lag_in_frames = 0;
        config.rc_end_usage = vpx_sys::vpx_rc_mode::VPX_CBR;
        config.rc_target_bitrate = bitrate_kbps;
        config.rc_min_quantizer = 4;
        config.rc_max_quantizer = 56;
        config.rc_undershoot_pct = 100;
        config.rc_overshoot_pct = 15;
        config.rc_buf_initial_sz = 500;
        config.rc_buf_optimal_sz = 600;
        config.rc_buf_sz = 1000;
        config.rc_dropframe_thresh = 0;
        config.kf_mode = vpx_sys::vpx_kf_mode::VPX_KF_FIXED;
        config.kf_min_dist = 0;
        config.kf_max_dist = 1 << 30;
        let mut context = Context::new();
        // SAFETY: the context is zeroed, as the call wants it; `config` lives for the call, which copies it.
        let code = unsafe {
            vpx_sys::vpx_codec_enc_init_ver(
                context.raw(),
                vpx_sys::vpx_codec_vp8_cx(),
                &config,
                0,
                vpx_sys::VPX_ENCODER_ABI_VERSION as c_int,
            )
        };
        check("encoder start", code)?;
        context.ready = true;
        let mut this = Self {
            context,
            width: usize::from(size.width),
            height: usize::from(size.height),
            frame_ticks: 90_000 / c_ulong::from(size.fps.max(1)),
        };
        this.control(
            "speed",
            VP8E_SET_CPUUSED as c_int,
            if size.height <= 360 { -12 } else { -16 },
        )?;
        this.control("static threshold", VP8E_SET_STATIC_THRESHOLD as c_int, 1)?;
        this.control("key frame size", VP8E_SET_MAX_INTRA_BITRATE_PCT as c_int, 600)?;
        Ok(this)
    }

    fn control(&mut self, call: &'static str, id: c_int, value: c_int) -> Result<(), VpxError> {
        // SAFETY: an encoder context that was started; each of the ids used above takes one int (or unsigned int).
        check(call, unsafe {
            vpx_sys::vpx_codec_control_(self.context.raw(), id, value)
        })
    }

    /// Encodes a picture of the encoder's size. `pts` is in ticks of 90 kHz and must grow. `Ok(None)`: the encoder
    /// made nothing of it.
    ///
    /// # Errors
    /// A picture of another size, or what libvpx says.
    pub fn encode(
        &mut self,
        picture: &Picture,
        pts: i64,
        key: bool,
    ) -> Result<Option<EncodedFrame<'_>>, VpxError> {
        if (picture.width(), picture.height()) != (self.width, self.height) {
            let why = format!(
                "a picture of {}x{} for an encoder of {}x{}",
                picture.width(),
                picture.height(),
                self.width,
                self.height,
            );
            return Err(VpxError { call: "encode", why });
        }
        let mut image = MaybeUninit::<vpx_image_t>::zeroed();
        let flags = if key { vpx_sys::VPX_EFLAG_FORCE_KF } else { 0 };
        // SAFETY: the planes of `picture` are I420 without padding, of the size given (checked above; even, so that
        // libvpx counts the same bytes), and live for the call; the encoder only reads them, though its type is
        // `*mut`. `vpx_img_wrap` fills `image`, which owns nothing and needs no freeing.
        let code = unsafe {
            let wrapped = vpx_sys::vpx_img_wrap(
                image.as_mut_ptr(),
                vpx_sys::vpx_img_fmt::VPX_IMG_FMT_I420,
                self.width as c_uint,
                self.height as c_uint,
                1,
                picture.data().as_ptr().cast_mut(),
            );
            if wrapped.is_null() {
                return Err(VpxError {
                    call: "wrap",
                    why: "no such picture".into(),
                });
            }
            vpx_sys::vpx_codec_encode(
                self.context.raw(),
                wrapped,
                pts,
                self.frame_ticks,
                flags.into(),
                vpx_sys::VPX_DL_REALTIME.into(),
            )
        };
        check("encode", code)?;
        Ok(self.next_frame())
    }

    fn next_frame(&mut self) -> Option<EncodedFrame<'_>> {
        let mut iterator = std::ptr::null();
        loop {
            // SAFETY: a started encoder; a packet that it returns lives until the next `encode`, which needs `&mut
            // self` and so ends the borrow. The union's `frame` is the one in use for frame packets.
            unsafe {
                let packet = vpx_sys::vpx_codec_get_cx_data(self.context.raw(), &mut iterator).as_ref()?;
                if packet.kind == vpx_sys::vpx_codec_cx_pkt_kind::VPX_CODEC_CX_FRAME_PKT {
                    let frame = packet.data.frame;
                    let data = std::slice::from_raw_parts(frame.buf.cast::<u8>(), frame.sz as usize);
                    return Some(EncodedFrame {
                        data,
                        key: frame.flags & vpx_sys::VPX_FRAME_IS_KEY != 0,
                    });
                }
            }
        }
    }
}

/// A VP8 decoder. The size of its pictures follows the stream, up to a limit.
#[derive(Debug)]
pub struct Decoder {
    context: Context,
}

/// The luma plane of a decoded picture: `height` rows of `width` pixels, `stride` bytes apart.
#[derive(Clone, Copy, Debug)]
pub struct Luma<'a> {
    pub data: &'a [u8],
    pub width: usize,
    pub height: usize,
    pub stride: usize,
}

impl Decoder {
    /// Pictures larger than this many pixels are refused before the decoder sees them (4096x2304).
    pub const MOST_PIXELS: u32 = 4096 * 2304;

    /// # Errors
    /// What libvpx says.
    pub fn new() -> Result<Self, VpxError> {
        let config = vpx_sys::vpx_codec_dec_cfg {
            threads: 1,
            w: 0,
            h: 0,
        };
        let mut context = Context::new();
        // SAFETY: the context is zeroed, as the call wants it; `config` lives for the call.
        let code = unsafe {
            vpx_sys::vpx_codec_dec_init_ver(
                context.raw(),
                vpx_sys::vpx_codec_vp8_dx(),
                &config,
                0,
                vpx_sys::VPX_DECODER_ABI_VERSION as c_int,
            )
        };
        check("decoder start", code)?;
        context.ready = true;
        Ok(Self { context })
    }

    /// Decodes a frame. `Ok(None)`: it shows nothing.
    ///
    /// # Errors
    /// A damaged or oversized frame; the decoder stays usable and wants a key frame.
    pub fn decode(&mut self, frame: &[u8]) -> Result<Option<Luma<'_>>, VpxError> {
        if let Some((width, height)) = crate::vp8::key_frame_size(frame)
            && u32::from(width) * u32::from(height) > Self::MOST_PIXELS
        {
            return Err(VpxError {
                call: "decode",
                why: format!("{width}x{height} is larger than is taken"),
            });
        }
        let size = c_uint::try_from(frame.len()).map_err(|_| VpxError {
            call: "decode",
            why: "a frame of over 4 GiB".into(),
        })?;
        // An empty frame means "the frame was lost" to libvpx; say so to nobody.
        if size == 0 {
            return Ok(None);
        }
        // SAFETY: a started decoder, and `frame` lives for the call.
        let code = unsafe {
            vpx_sys::vpx_codec_decode(self.context.raw(), frame.as_ptr(), size, std::ptr::null_mut(), 0)
        };
        check("decode", code)?;
        let mut iterator = std::ptr::null();
        // SAFETY: a started decoder; the image that it returns and its planes live until the next `decode`, which needs
        // `&mut self` and so ends the borrow. Plane 0 has `d_h` rows, `stride[0]` bytes apart, each of `d_w` pixels.
        unsafe {
            let Some(image) = vpx_sys::vpx_codec_get_frame(self.context.raw(), &mut iterator).as_ref() else {
                return Ok(None);
            };
            let (width, height) = (image.d_w as usize, image.d_h as usize);
            let stride = usize::try_from(image.stride[0]).unwrap_or(0);
            if image.planes[0].is_null() || width == 0 || height == 0 || stride < width {
                return Ok(None);
            }
            let data = std::slice::from_raw_parts(image.planes[0], stride * (height - 1) + width);
            Ok(Some(Luma {
                data,
                width,
                height,
                stride,
            }))
        }
    }
}

/// A codec context, on the heap because libvpx keeps pointers into it; destroyed if it was started.
#[derive(Debug)]
struct Context {
    raw: Box<MaybeUninit<vpx_codec_ctx_t>>,
    ready: bool,
}

// SAFETY: libvpx contexts have no thread affinity; the value is owned by one thread at a time, as it is not Sync.
unsafe impl Send for Context {}

impl Context {
    fn new() -> Self {
        Self {
            raw: Box::new(MaybeUninit::zeroed()),
            ready: false,
        }
    }

    fn raw(&mut self) -> *mut vpx_codec_ctx_t {
        self.raw.as_mut_ptr()
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.ready {
            // SAFETY: started, and destroyed only here.
            unsafe { vpx_sys::vpx_codec_destroy(self.raw()) };
        }
    }
}

fn check(call: &'static str, code: vpx_codec_err_t) -> Result<(), VpxError> {
    if code == vpx_codec_err_t::VPX_CODEC_OK {
        return Ok(());
    }
    // SAFETY: the function returns a static C string for any code.
    let why = unsafe { std::ffi::CStr::from_ptr(vpx_codec_err_to_string(code)) };
    Err(VpxError {
        call,
        why: why.to_string_lossy().into_owned(),
    })
}
