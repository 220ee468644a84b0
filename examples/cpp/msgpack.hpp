// The part of msgpack that the wire uses: writing maps, text, numbers and arrays of bytes; reading
// anything but extension types.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace msgpack {

struct Value {
  enum Kind { Nil, Bool, Int, Float, Text, Bytes, List, Map } kind = Nil;
  bool boolean = false;
  int64_t integer = 0;
  double number = 0;
  std::string bytes;                            // Text and Bytes
  std::vector<Value> list;                      // List
  std::vector<std::pair<std::string, Value>> map;  // Map, by keys of text or bytes

  const Value* find(const std::string& key) const {
    for (const auto& [name, value] : map)
      if (name == key) return &value;
    return nullptr;
  }
  const Value& at(const std::string& key) const {
    if (const Value* value = find(key)) return *value;
    throw std::runtime_error("no '" + key + "' in what the server said");
  }
  double as_number() const { return kind == Int ? static_cast<double>(integer) : number; }
};

class Writer {
 public:
  std::string out;

  void map(uint32_t size) { head(0x80, 16, 0xDE, size); }
  void list(uint32_t size) { head(0x90, 16, 0xDC, size); }
  void boolean(bool value) { byte(value ? 0xC3 : 0xC2); }
  void integer(int64_t value) { byte(0xD3); big(static_cast<uint64_t>(value), 8); }
  void number(double value) {
    uint64_t bits;
    std::memcpy(&bits, &value, 8);
    byte(0xCB);
    big(bits, 8);
  }
  void text(const std::string& value) { byte(0xDB); big(value.size(), 4); out += value; }
  void bytes(const void* data, size_t size) {
    byte(0xC6);
    big(size, 4);
    out.append(static_cast<const char*>(data), size);
  }

  // An array as openpi packs it: a map whose keys are bytes.
  void array(const char* dtype, const std::vector<int64_t>& shape, const void* data, size_t size) {
    map(4);
    bytes("__ndarray__", 11);
    boolean(true);
    bytes("data", 4);
    bytes(data, size);
    bytes("dtype", 5);
    text(dtype);
    bytes("shape", 5);
    list(static_cast<uint32_t>(shape.size()));
    for (int64_t side : shape) integer(side);
  }

 private:
  void byte(int value) { out += static_cast<char>(value); }
  void big(uint64_t value, int count) {
    for (int i = count - 1; i >= 0; --i) byte(static_cast<int>((value >> (8 * i)) & 0xFF));
  }
  void head(int small, uint32_t limit, int large, uint32_t size) {
    if (size < limit) byte(small | static_cast<int>(size));
    else { byte(large); big(size, 2); }
  }
};

class Reader {
 public:
  explicit Reader(const std::string& data) : data_(data) {}

  Value read(int depth = 0) {
    if (depth > 64) throw std::runtime_error("msgpack: too deep");
    Value value;
    const unsigned char tag = static_cast<unsigned char>(take(1)[0]);
    if (tag < 0x80 || tag >= 0xE0) return integer(static_cast<int8_t>(tag));
    if (tag < 0x90) return map(tag & 0x0F, depth);
    if (tag < 0xA0) return list(tag & 0x0F, depth);
    if (tag < 0xC0) return text(tag & 0x1F, Value::Text);
    switch (tag) {
      case 0xC0: return value;
      case 0xC2: case 0xC3: value.kind = Value::Bool; value.boolean = tag & 1; return value;
      case 0xC4: case 0xC5: case 0xC6: return text(big(1 << (tag - 0xC4)), Value::Bytes);
      case 0xCA: {
        const uint32_t bits = static_cast<uint32_t>(big(4));
        float single;
        std::memcpy(&single, &bits, 4);
        return number(single);
      }
      case 0xCB: {
        const uint64_t bits = big(8);
        double both;
        std::memcpy(&both, &bits, 8);
        return number(both);
      }
      case 0xCC: case 0xCD: case 0xCE: case 0xCF:
        return integer(static_cast<int64_t>(big(1 << (tag - 0xCC))));
      case 0xD0: return integer(static_cast<int8_t>(big(1)));
      case 0xD1: return integer(static_cast<int16_t>(big(2)));
      case 0xD2: return integer(static_cast<int32_t>(big(4)));
      case 0xD3: return integer(static_cast<int64_t>(big(8)));
      case 0xD9: case 0xDA: case 0xDB: return text(big(1 << (tag - 0xD9)), Value::Text);
      case 0xDC: return list(big(2), depth);
      case 0xDD: return list(big(4), depth);
      case 0xDE: return map(big(2), depth);
      case 0xDF: return map(big(4), depth);
    }
    throw std::runtime_error("msgpack: a type that this reader does not know");
  }

 private:
  std::string take(uint64_t count) {
    if (count > data_.size() - at_) throw std::runtime_error("msgpack: cut off");
    at_ += count;
    return data_.substr(at_ - count, count);
  }
  uint64_t big(int count) {
    uint64_t value = 0;
    for (unsigned char byte : take(count)) value = (value << 8) | byte;
    return value;
  }
  static Value integer(int64_t n) { Value v; v.kind = Value::Int; v.integer = n; return v; }
  static Value number(double n) { Value v; v.kind = Value::Float; v.number = n; return v; }
  Value text(uint64_t size, Value::Kind kind) {
    Value value;
    value.kind = kind;
    value.bytes = take(size);
    return value;
  }
  Value list(uint64_t size, int depth) {
    Value value;
    value.kind = Value::List;
    for (uint64_t i = 0; i < size; ++i) value.list.push_back(read(depth + 1));
    return value;
  }
  Value map(uint64_t size, int depth) {
    Value value;
    value.kind = Value::Map;
    for (uint64_t i = 0; i < size; ++i) {
      Value key = read(depth + 1);
      value.map.emplace_back(std::move(key.bytes), read(depth + 1));
    }
    return value;
  }

  const std::string& data_;
  uint64_t at_ = 0;
};

}  // namespace msgpack
