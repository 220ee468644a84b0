// One request to a policy server: ask HOST PORT "INSTRUCTION" [PICTURE.ppm ...]
// Pictures are PPM (P6), one for each view in the metadata's order. The token, for a server that asks
// for one, stands in RT2_TOKEN.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>

#include "policy_client.hpp"

static Picture read_ppm(const char* name) {
  std::ifstream file(name, std::ios::binary);
  std::string magic;
  int width = 0, height = 0, largest = 0;
  file >> magic >> width >> height >> largest;
  if (magic != "P6" || largest != 255 || width < 1 || height < 1 || width > 8192 || height > 8192)
    throw std::runtime_error(std::string(name) + ": no PPM picture (P6, 8 bits, no comments)");
  file.get();
  Picture picture{height, width, std::vector<uint8_t>(3u * height * width)};
  file.read(reinterpret_cast<char*>(picture.rgb.data()), picture.rgb.size());
  if (!file) throw std::runtime_error(std::string(name) + ": is cut off");
  return picture;
}

int main(int count, char** words) {
  if (count < 5) {
    std::fprintf(stderr, "usage: %s HOST PORT INSTRUCTION PICTURE.ppm [PICTURE.ppm ...]\n", words[0]);
    return 2;
  }
  try {
    const char* token = std::getenv("RT2_TOKEN");
    PolicyClient client(words[1], words[2], token ? token : "", /*timeout_s=*/5);
    const msgpack::Value& space = client.metadata().at("action_space");
    std::map<std::string, Picture> images;
    int next = 4;
    for (const msgpack::Value& view : client.metadata().at("views").list)
      if (next < count) images[view.bytes] = read_ppm(words[next++]);
    client.reset("cpp example");
    const Actions actions = client.infer(images, words[3], "cpp example", 2000);
    for (size_t step = 0; step < actions.steps; ++step)
      for (size_t i = 0; i < actions.fields; ++i) {
        const msgpack::Value& field = space.at("fields").list[i];
        std::printf("%zu %s %+.5f %s (%s frame)\n", step, field.at("name").bytes.c_str(),
                    actions.values[step * actions.fields + i], field.at("unit").bytes.c_str(),
                    field.at("frame").bytes.c_str());
      }
    std::printf("control rate %g Hz, infer %.1f ms\n", space.at("control_rate_hz").as_number(),
                actions.infer_ms);
  } catch (const Refused& refusal) {
    std::fprintf(stderr, "no action: %s\n", refusal.what());
    return 3;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
