//! Written by `scripts/dashboard build`.

use super::File;

#[rustfmt::skip]
pub const FILES: &[File] = &[
    File {
        path: "assets/icon-RRA-vq3o.svg",
        content_type: "image/svg+xml",
        bytes: include_bytes!("dist/assets/icon-RRA-vq3o.svg"),
    },
    File {
        path: "assets/page-BAVAbAl_.js",
        content_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("dist/assets/page-BAVAbAl_.js"),
    },
    File {
        path: "assets/style-DUzwI4EH.css",
        content_type: "text/css; charset=utf-8",
        bytes: include_bytes!("dist/assets/style-DUzwI4EH.css"),
    },
    File {
        path: "index.html",
        content_type: "text/html; charset=utf-8",
        bytes: include_bytes!("dist/index.html"),
    },
    File {
        path: "licences.txt",
        content_type: "text/plain; charset=utf-8",
        bytes: include_bytes!("dist/licences.txt"),
    },
];
