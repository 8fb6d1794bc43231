//! Thumbnails: made on demand in a few fixed sizes, and kept.

use std::{io::Cursor, path::Path};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, imageops::FilterType};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::{MediaError, MediaFile, files};

/// Largest side of an image that is decoded, in pixels.
const MAX_SIDE: u32 = 16_384;
/// Memory that decoding one image may take: a photo of 40 megapixels in RGBA.
const MAX_DECODED_BYTES: u64 = 160 * 1024 * 1024;
/// Images decoded at the same time; with [`MAX_DECODED_BYTES`] it bounds the memory.
const CONCURRENT: usize = 2;
/// Requests that may wait for their turn.
const WAITING: usize = 64;
/// The sizes made, smallest first: those of the specification, and one for large screens. The
/// number of files per image is thereby bounded.
const SIZES: [(u32, u32, Fit); 6] = [
    (32, 32, Fit::Fill),
    (96, 96, Fit::Fill),
    (320, 240, Fit::Inside),
    (640, 480, Fit::Inside),
    (800, 600, Fit::Inside),
    (1600, 1200, Fit::Inside),
];

static TURNS: Semaphore = Semaphore::const_new(CONCURRENT);
static QUEUE: Semaphore = Semaphore::const_new(WAITING);

/// How a picture is fitted into the wanted size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// `crop`: the size is filled, and what stands out is cut off.
    Fill,
    /// `scale`: the whole picture is inside the size.
    Inside,
}

/// The size that a client wants, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThumbnailSize {
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
    /// How to fit it.
    pub fit: Fit,
}

impl ThumbnailSize {
    /// The smallest size made that is not below the wanted one; else the largest. A wanted
    /// `crop` has only square sizes, and is scaled when they are too small.
    fn made(self) -> Self {
        let large_enough =
            |(width, height, _): &&(u32, u32, Fit)| *width >= self.width && *height >= self.height;
        let (width, height, fit) = SIZES
            .iter()
            .filter(|(_, _, fit)| *fit == self.fit)
            .find(large_enough)
            .or_else(|| SIZES.iter().filter(|(_, _, fit)| *fit == Fit::Inside).find(large_enough))
            .copied()
            .unwrap_or(SIZES[SIZES.len() - 1]);
        Self { width, height, fit }
    }

    fn suffix(self) -> String {
        let fit = match self.fit {
            Fit::Fill => "crop",
            Fit::Inside => "scale",
        };
        format!("{}x{}-{fit}", self.width, self.height)
    }
}

/// The thumbnail of an image; the original where that is the smaller.
pub(super) async fn make(
    media_dir: &Path,
    original: MediaFile,
    size: ThumbnailSize,
) -> Result<MediaFile, MediaError> {
    let _waiting = QUEUE.try_acquire().map_err(|_| MediaError::Busy)?;
    let _turn = TURNS.acquire().await.map_err(|_| MediaError::Busy)?;
    let size = size.made();
    let dir = media_dir.join("thumbnails");
    files::blocking(move || {
        let hash = HEXLOWER.encode(&Sha256::digest(&original.bytes));
        let path = dir.join(format!("{hash}-{}", size.suffix()));
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(_) => match shrink(&original.bytes, size) {
                Some(bytes) => {
                    // Two requests may make the same file at once: each writes its own aside.
                    let thread = format!("{:?}", std::thread::current().id());
                    let aside = dir.join(format!("{hash}-{}-{}", size.suffix(), digits(&thread)));
                    files::put(&aside, &path, &bytes)?;
                    bytes
                }
                None => return Ok(None),
            },
        };
        Ok(Some(finished(original, bytes)))
    })
    .await?
    .ok_or(MediaError::NoThumbnail)
}

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

fn finished(original: MediaFile, bytes: Vec<u8>) -> MediaFile {
    let content_type = match image::guess_format(&bytes) {
        Ok(ImageFormat::Jpeg) => "image/jpeg",
        _ => "image/png",
    };
    MediaFile {
        bytes: Bytes::from(bytes),
        content_type: Some(content_type.to_owned()),
        filename: original.filename,
    }
}

/// Decodes within the limits and makes smaller; `None` when it is no image we decode.
fn shrink(bytes: &[u8], size: ThumbnailSize) -> Option<Vec<u8>> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    reader.limits(limits);
    let format = reader.format()?;
    let mut decoder = reader.into_decoder().ok()?;
    let orientation = decoder.orientation().ok()?;
    let mut picture = DynamicImage::from_decoder(decoder).ok()?;
    picture.apply_orientation(orientation);
    let small = match size.fit {
        Fit::Fill => picture.resize_to_fill(size.width, size.height, FilterType::Triangle),
        // Never made larger: the client can do that itself.
        Fit::Inside if picture.width() <= size.width && picture.height() <= size.height => picture,
        Fit::Inside => picture.thumbnail(size.width, size.height),
    };
    let mut out = Cursor::new(Vec::new());
    // Only photos are JPEG; everything else may have transparent parts.
    if format == ImageFormat::Jpeg {
        DynamicImage::from(small.into_rgb8()).write_to(&mut out, ImageFormat::Jpeg).ok()?;
    } else {
        DynamicImage::from(small.into_rgba8()).write_to(&mut out, ImageFormat::Png).ok()?;
    }
    Some(out.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        DynamicImage::new_rgb8(width, height).write_to(&mut out, ImageFormat::Png).unwrap();
        out.into_inner()
    }

    fn want(width: u32, height: u32, fit: Fit) -> ThumbnailSize {
        ThumbnailSize { width, height, fit }
    }

    #[test]
    fn a_size_is_rounded_up_to_one_that_is_made() {
        assert_eq!(want(40, 40, Fit::Fill).made(), want(96, 96, Fit::Fill));
        assert_eq!(want(320, 200, Fit::Inside).made(), want(320, 240, Fit::Inside));
        assert_eq!(want(500, 500, Fit::Fill).made(), want(800, 600, Fit::Inside));
        assert_eq!(want(9999, 1, Fit::Inside).made(), want(1600, 1200, Fit::Inside));
    }

    #[test]
    fn a_picture_becomes_smaller_never_larger() {
        let side = |bytes: &[u8]| {
            let picture = image::load_from_memory(bytes).unwrap();
            (picture.width(), picture.height())
        };
        let large = shrink(&png(1000, 500), want(320, 240, Fit::Inside)).unwrap();
        assert_eq!(side(&large), (320, 160));
        let cropped = shrink(&png(1000, 500), want(96, 96, Fit::Fill)).unwrap();
        assert_eq!(side(&cropped), (96, 96));
        let small = shrink(&png(10, 5), want(320, 240, Fit::Inside)).unwrap();
        assert_eq!(side(&small), (10, 5));
    }

    #[test]
    fn what_is_no_image_or_too_large_has_no_thumbnail() {
        let size = want(320, 240, Fit::Inside);
        assert_eq!(shrink(b"<svg onload=alert(1)>", size), None);
        assert_eq!(shrink(&png(MAX_SIDE + 1, 1), size), None);
        let mut truncated = png(100, 100);
        truncated.truncate(40);
        assert_eq!(shrink(&truncated, size), None);
    }
}
