// A client of the native wire (docs/client.md): the metadata first, then one frame for each request.
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "msgpack.hpp"
#include "websocket.hpp"

struct Picture {
  int height, width;
  std::vector<uint8_t> rgb;  // row by row
};

// The server refused and said why: the text begins with REFUSED, DEADLINE, BUSY, SUPERSEDED, UNSAFE
// or FAILED. The connection stays open. There is no action: the robot must stop by itself.
struct Refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Actions {
  size_t steps, fields;
  std::vector<float> values;  // steps x fields, native units
  double infer_ms;
};

class PolicyClient {
 public:
  // Throws std::runtime_error when no server answers, or another version of the protocol.
  PolicyClient(const std::string& host, const std::string& port, const std::string& token = "",
               double timeout_s = 30)
      : socket_(host, port, token, timeout_s) {
    metadata_ = receive();
    if (metadata_.at("protocol_version").as_number() != 1)
      throw std::runtime_error("the server speaks another version of the protocol");
  }

  const msgpack::Value& metadata() const { return metadata_; }

  // Begins an episode.
  void reset(const std::string& session) {
    msgpack::Writer request;
    request.map(1);
    request.text("reset");
    request.text(session);
    socket_.send_binary(request.out);
    receive();
  }

  // The next actions. `budget_ms` from now: an answer that comes later throws Refused. One request
  // is in flight at a time.
  Actions infer(const std::map<std::string, Picture>& images, const std::string& instruction,
                const std::string& session, double budget_ms) {
    const auto begin = std::chrono::steady_clock::now();
    msgpack::Writer request;
    request.map(6);
    request.text("images");
    request.map(static_cast<uint32_t>(images.size()));
    for (const auto& [view, picture] : images) {
      request.text(view);
      request.array("|u1", {picture.height, picture.width, 3}, picture.rgb.data(),
                    picture.rgb.size());
    }
    request.text("prompt");
    request.text(instruction);
    request.text("session");
    request.text(session);
    request.text("seq");
    request.integer(++seq_);
    request.text("budget_ms");
    request.number(budget_ms);
    request.text("schema_hash");
    request.text(metadata_.at("schema_hash").bytes);
    socket_.send_binary(request.out);
    const msgpack::Value answer = receive();
    if (answer.at("seq").integer != seq_)
      throw std::runtime_error("the server answered another request");
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
    if (took.count() > budget_ms) throw Refused("DEADLINE: the answer came too late to be used");
    return actions(answer);
  }

 private:
  msgpack::Value receive() {
    const WebSocket::Message message = socket_.receive();
    if (message.text) throw Refused(message.data);
    return msgpack::Reader(message.data).read();
  }

  Actions actions(const msgpack::Value& answer) const {
    const msgpack::Value& array = answer.at("actions");
    const auto& shape = array.at("shape").list;
    const size_t fields = metadata_.at("action_space").at("fields").list.size();
    if (array.at("dtype").bytes != "<f4" || shape.size() != 2 ||
        static_cast<size_t>(shape[1].integer) != fields || shape[0].integer < 1)
      throw std::runtime_error("the server's actions are not float32 [K, D]");
    const size_t steps = static_cast<size_t>(shape[0].integer);
    const std::string& data = array.at("data").bytes;
    if (data.size() != 4 * steps * fields) throw std::runtime_error("actions are cut off");
    Actions found{steps, fields, std::vector<float>(steps * fields), 0};
    std::memcpy(found.values.data(), data.data(), data.size());  // hosts are little-endian, as "<f4"
    found.infer_ms = answer.at("server_timing").at("infer_ms").as_number();
    return found;
  }

  WebSocket socket_;
  msgpack::Value metadata_;
  int64_t seq_ = 0;
};
