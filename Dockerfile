# docker build -t pi0-server . && docker run -p 8000:8000 -v CHECKPOINT:/checkpoint pi0-server \
#   --config pi05_droid --checkpoint-dir /checkpoint
FROM debian:12
WORKDIR /pi0-server
COPY . .
RUN apt-get update -qq \
 && bash tools/setup.sh \
 && cmake --install build/release --prefix /usr/local \
 && rm -rf build ~/.cache
EXPOSE 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/pi0-server"]
