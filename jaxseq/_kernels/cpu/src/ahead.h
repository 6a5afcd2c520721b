// Memory that will soon be read or written, fetched into the cache while products run.
#pragma once
#include "vector.h"

namespace {

class Ahead {
 public:
  void clear() { parts = part = 0; }
  // rows that lie `pitch` bytes apart
  void add(const void* data, int64_t rows, int64_t pitch, int64_t bytes) {
    if (parts == MOST || rows < 1 || bytes < 1) return;
    for (int64_t i = 0; i < parts; ++i)
      if (all[i].data == data) return;
    all[parts++] = {(const char*)data, rows, pitch, bytes};
    if (parts == 1) begin(0);
  }
  // fetches the next lines, if there are any
  void fetch(int64_t lines) {
    for (; lines > 0 && part < parts; --lines) {
      __builtin_prefetch(line, 0, 2);
      line += LINE;
      if (line < end) continue;
      if (++row < all[part].rows) begin(row);
      else if (++part < parts) begin(0);
    }
  }

 private:
  static constexpr int64_t MOST = 32, LINE = 64;
  struct Part {
    const char* data;
    int64_t rows, pitch, bytes;
  };
  Part all[MOST];
  int64_t parts = 0, part = 0, row = 0;
  const char *line = nullptr, *end = nullptr;

  void begin(int64_t i) {
    const Part& p = all[part];
    row = i, line = p.data + i * p.pitch, end = line + p.bytes;
    line -= (uintptr_t)line % LINE;
  }
};

}  // namespace
