// A websocket client (RFC 6455) on a POSIX socket: ws:// only, whole messages, answers pings.
// Every wait has an end: after `timeout_s` without a byte it throws.
#pragma once

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>

#include "sha1.hpp"

class WebSocket {
 public:
  struct Message {
    bool text;
    std::string data;
  };

  WebSocket(const std::string& host, const std::string& port, const std::string& token = "",
            double timeout_s = 30) {
    addrinfo hints{}, *found = nullptr;
    hints.ai_socktype = SOCK_STREAM;
    const int status = getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
    if (status != 0) throw std::runtime_error(host + ": " + gai_strerror(status));
    for (addrinfo* each = found; each && socket_ < 0; each = each->ai_next) {
      socket_ = ::socket(each->ai_family, each->ai_socktype, each->ai_protocol);
      if (socket_ < 0) continue;
      set_timeout(timeout_s);
      if (::connect(socket_, each->ai_addr, each->ai_addrlen) != 0) {
        ::close(socket_);
        socket_ = -1;
      }
    }
    freeaddrinfo(found);
    if (socket_ < 0) throw std::runtime_error(host + ":" + port + ": no server answers");
    const int on = 1;
    setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    try {
      shake_hands(host, port, token);
    } catch (...) {
      ::close(socket_);  // a constructor that throws has no destructor
      throw;
    }
  }

  ~WebSocket() { ::close(socket_); }
  WebSocket(const WebSocket&) = delete;
  WebSocket& operator=(const WebSocket&) = delete;

  void send_binary(const std::string& data) { send_frame(0x2, data); }

  Message receive() {
    Message message{false, ""};
    while (true) {
      const std::string head = read(2);
      const int opcode = head[0] & 0x0F;
      uint64_t size = head[1] & 0x7F;
      if (head[1] & 0x80) throw std::runtime_error("the server masks its frames");
      if (size >= 126) {
        const std::string more = read(size == 126 ? 2 : 8);
        size = 0;
        for (unsigned char byte : more) size = (size << 8) | byte;
      }
      if (size > kLargest) throw std::runtime_error("a frame is too large");
      std::string data = read(size);
      if (opcode == 0x8) throw std::runtime_error("the server closed the connection");
      if (opcode == 0x9) send_frame(0xA, data);
      if (opcode >= 0x8) continue;
      if (opcode != 0) message.text = opcode == 0x1;
      message.data += data;
      if (message.data.size() > kLargest) throw std::runtime_error("a message is too large");
      if (head[0] & 0x80) return message;
    }
  }

 private:
  static constexpr uint64_t kLargest = 64u << 20;

  void set_timeout(double seconds) {
    timeval limit{};
    limit.tv_sec = static_cast<time_t>(seconds);
    limit.tv_usec = static_cast<suseconds_t>(1e6 * std::fmod(seconds, 1.0));
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  }

  void shake_hands(const std::string& host, const std::string& port, const std::string& token) {
    std::string nonce;
    for (int i = 0; i < 16; ++i) nonce += static_cast<char>(random_());
    const std::string key = base64(nonce);
    std::string request = "GET / HTTP/1.1\r\nHost: " + host + ":" + port +
                          "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + "\r\n";
    if (!token.empty()) request += "Authorization: Bearer " + token + "\r\n";
    write(request + "\r\n");
    std::string answer;
    while (answer.size() < 4 || answer.compare(answer.size() - 4, 4, "\r\n\r\n") != 0) {
      if (answer.size() > 65536) throw std::runtime_error("no end of the server's headers");
      answer += read(1);
    }
    if (answer.compare(0, 12, "HTTP/1.1 101") != 0)
      throw std::runtime_error("the server refused: " + answer.substr(0, answer.find("\r\n")));
    const std::string expected = base64(sha1(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    if (answer.find(expected) == std::string::npos)
      throw std::runtime_error("the server's handshake is not a websocket's");
  }

  void send_frame(int opcode, const std::string& data) {
    std::string frame(1, static_cast<char>(0x80 | opcode));
    const uint64_t size = data.size();
    const int bytes = size < 126 ? 0 : size < 65536 ? 2 : 8;
    frame += static_cast<char>(0x80 | (bytes == 0 ? size : bytes == 2 ? 126 : 127));
    for (int i = bytes - 1; i >= 0; --i) frame += static_cast<char>(size >> (8 * i));
    char mask[4];
    for (char& byte : mask) byte = static_cast<char>(random_());
    frame.append(mask, 4);
    const size_t begin = frame.size();
    frame += data;
    for (size_t i = 0; i < data.size(); ++i) frame[begin + i] ^= mask[i % 4];
    write(frame);
  }

  void write(const std::string& data) {
    size_t sent = 0;
    while (sent < data.size()) {
      const ssize_t n = ::send(socket_, data.data() + sent, data.size() - sent, MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) throw std::runtime_error(std::string("cannot send: ") + std::strerror(errno));
      sent += static_cast<size_t>(n);
    }
  }

  std::string read(size_t count) {
    std::string data(count, '\0');
    size_t got = 0;
    while (got < count) {
      const ssize_t n = ::recv(socket_, data.data() + got, count - got, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n == 0) throw std::runtime_error("the connection was lost");
      if (n < 0) throw std::runtime_error(std::string("no answer: ") + std::strerror(errno));
      got += static_cast<size_t>(n);
    }
    return data;
  }

  int socket_ = -1;
  std::random_device random_;
};
