# The driver with the file-system tools it calls, and nothing else: no shell, no package manager, no sandbox.
#
#   docker build --build-arg REVISION=$(git rev-parse HEAD) -t REGISTRY/csi-udisk:0.1.0 .
#   docker buildx build --platform linux/amd64,linux/arm64 ...    (arm64 is declared, and was never run)
#
# BUILD_IMAGE is a Debian with Rust 1.95 or newer; the tools and libraries of the image are taken from its packages.
# BASE_IMAGE is what they are laid upon.
ARG BUILD_IMAGE=docker.io/library/rust:1.95-slim-bookworm
ARG BASE_IMAGE=scratch

FROM ${BUILD_IMAGE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends btrfs-progs ca-certificates e2fsprogs xfsprogs \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# Linked with its C library, so that it runs on any base and shares nothing with the tools. The target is named so that the
# flag does not reach build scripts.
# The variable takes the place of .cargo/config.toml, whose flag is repeated.
RUN target=$(rustc -vV | sed -n 's/^host: //p') \
    && RUSTFLAGS='-C symbol-mangling-version=v0 -C target-feature=+crt-static' \
       cargo build --locked --release --no-default-features --features kube --target "$target" \
    && install -D "target/$target/release/csi-udisk" /image/usr/local/bin/csi-udisk
RUN deploy/image/collect /image

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="csi-udisk" \
      org.opencontainers.image.description="Kubernetes CSI driver for UCloud UDisk block volumes" \
      org.opencontainers.image.licenses="Apache-2.0 AND GPL-2.0-only AND LGPL-2.1-or-later" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image /
ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# The user is the manifests' matter: the controller runs as nobody in particular, the node must be root to mount.
ENTRYPOINT ["/usr/local/bin/csi-udisk"]
