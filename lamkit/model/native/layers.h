// What training (mlp.h) and prediction (predict.h) share: the network of Orb's layers, its weights in the order in
// which products read them, and its steps on a block of rows that stays in the cache.
//
// For a row x:  h1 = W1 x + b1, h2 = W2 f(h1) + b2, y = W3 f(h2) + b3, u = norm(y).
// On edges x = [e, n_sender, n_receiver]; W1 is split in three and the node parts are applied once per node.
#pragma once
#include "edges.h"
#include "gemm.h"
#include "norm.h"

namespace lamkit {

template <typename T>
struct Net {
  long M = 0;          // rows
  long K = 0;          // width of a row's own part
  long N = 0, D = 0;   // nodes and their width; 0 without
  long H = 0, O = 0;   // hidden and output width
  const int *senders = nullptr, *receivers = nullptr;
  const T *rows = nullptr, *nodes = nullptr;
  const T *W1 = nullptr, *b1 = nullptr, *W2 = nullptr, *b2 = nullptr, *W3 = nullptr, *b3 = nullptr;
  const T *gain = nullptr, *shift = nullptr;
  long width() const { return K + 2 * D; }  // columns of W1
};

// Scratch slots of Arena, one per purpose.
enum Slot : size_t {
  kAhead, kPacked, kNodes, kSent, kReceived, kSentIn, kReceivedIn, kBlocks, kK1, kK2, kY, kGates, kNorm, kOuter, kOuter2
};

// The factors of a forward sweep: W1, its node parts, W2, W3. `put` receives every one with its place.
template <typename T>
struct Ahead {
  Packed<T> w1, at_sender, at_receiver, w2, w3;

  static long size(const Net<T>& net) {
    return padded<T>(net.H) * (net.width() + net.H) + padded<T>(net.O) * net.H;
  }

  // The memory is there and filled.
  Ahead(const Net<T>& net, const T* at) {
    const long tall = padded<T>(net.H);
    w1 = {at, net.K, net.H};
    at_sender = {at += tall * net.K, net.D, net.H};
    at_receiver = {at += tall * net.D, net.D, net.H};
    w2 = {at += tall * net.D, net.H, net.H};
    w3 = {at += tall * net.H, net.H, net.O};
  }

  static Ahead fill(const Net<T>& net, T* at) {
    const Ahead a(net, at);
    pack_transposed(net.W1, net.width(), a.w1);
    if (net.D) {
      pack_transposed(net.W1 + net.K, net.width(), a.at_sender);
      pack_transposed(net.W1 + net.K + net.D, net.width(), a.at_receiver);
    }
    pack_transposed(net.W2, net.H, a.w2);
    pack_transposed(net.W3, net.H, a.w3);
    return a;
  }
  static Ahead fill(const Net<T>& net) { return fill(net, Arena::instance().get<T>(kAhead, size(net))); }
};

// The factors of a reverse sweep: W3, W2, the parts of W1.
template <typename T>
struct Backward {
  Packed<T> w3, w2, w1, at_sender, at_receiver;

  static long size(const Net<T>& net) {
    return padded<T>(net.H) * (net.O + net.H) + (padded<T>(net.K) + 2 * padded<T>(net.D)) * net.H;
  }

  Backward(const Net<T>& net, const T* at) {
    w3 = {at, net.O, net.H};
    w2 = {at += padded<T>(net.H) * net.O, net.H, net.H};
    w1 = {at += padded<T>(net.H) * net.H, net.H, net.K};
    at_sender = {at += padded<T>(net.K) * net.H, net.H, net.D};
    at_receiver = {at += padded<T>(net.D) * net.H, net.H, net.D};
  }

  static Backward fill(const Net<T>& net, T* at) {
    const Backward b(net, at);
    pack(net.W3, net.H, b.w3);
    pack(net.W2, net.H, b.w2);
    pack(net.W1, net.width(), b.w1);
    if (net.D) {
      pack(net.W1 + net.K, net.width(), b.at_sender);
      pack(net.W1 + net.K + net.D, net.width(), b.at_receiver);
    }
    return b;
  }
  static Backward fill(const Net<T>& net) { return fill(net, Arena::instance().get<T>(kPacked, size(net))); }
};

template <typename T, typename Act, bool kCentred>
class Layers {
 protected:
  using N_ = Norm<kCentred, T>;

  struct Widths {
    long big, small, rows, blocks;
    explicit Widths(const Net<T>& net, long M, bool again = false)
        : big(stride<T>(net.H)), small(stride<T>(std::max(net.K, net.O))) {
      rows = block_rows<T>(M, net.H);
      blocks = again ? 5 : 2;  // a, b and, where layers are made again, h1, h2, y
    }
  };

  // work(first row, last row, small block, big block, big block; further big blocks follow)
  template <typename Work>
  static void in_blocks(long M, const Widths& w, Work work) {
    Pool& pool = Pool::instance();
    const long room = w.rows * (w.small + w.blocks * std::max(w.big, w.small));
    T* scratch = Arena::instance().get<T>(kBlocks, room * pool.threads());
    pool.run((M + w.rows - 1) / w.rows, [&](long piece, int thread) {
      T* x = scratch + thread * room;
      work(piece * w.rows, std::min(M, (piece + 1) * w.rows), x, x + w.rows * w.small, x + w.rows * (w.small + w.big));
    });
  }

  // h1 of rows m0 ... in a
  static void first(const Net<T>& net, const Widths& w, const Ahead<T>& ahead, const T* sent, const T* received,
                    long m0, long rows, T* x, T* a) {
    copy_rows(net.rows + m0 * net.K, net.K, rows, x, w.small);
    block_product(x, w.small, rows, ahead.w1, a, w.big);
    for (long i = 0; i < rows; i++) {
      T* row = a + i * w.big;
      if (net.N) {
        const T* s = sent + net.senders[m0 + i] * net.H;
        const T* r = received + net.receivers[m0 + i] * net.H;
        for (long j = 0; j < net.H; j++) row[j] += s[j] + r[j];
      } else {
        for (long j = 0; j < net.H; j++) row[j] += net.b1[j];
      }
    }
  }

  // Rows m0 ... up to y (before the norm), which is left in x; h1 and h2 go to p and q [rows, H] unless null.
  static void hidden(const Net<T>& net, const Widths& w, const Ahead<T>& ahead, const T* sent, const T* received,
                     long m0, long rows, T* x, T* a, T* b, T* p, T* q) {
    const long H = net.H;
    first(net, w, ahead, sent, received, m0, rows, x, a);
    for (long i = 0; i < rows; i++) {
      T* row = a + i * w.big;
      if (p) std::memcpy(p + i * H, row, H * sizeof(T));
      activate(row, H);
    }
    block_product(a, w.big, rows, ahead.w2, b, w.big);
    for (long i = 0; i < rows; i++) {
      T* row = b + i * w.big;
      for (long j = 0; j < H; j++) row[j] += net.b2[j];
      if (q) std::memcpy(q + i * H, row, H * sizeof(T));
      activate(row, H);
    }
    block_product(b, w.big, rows, ahead.w3, x, w.small);
    for (long i = 0; i < rows; i++)
      for (long j = 0; j < net.O; j++) x[i * w.small + j] += net.b3[j];
  }

  static void copy_rows(const T* from, long width, long rows, T* to, long ld) {
    for (long i = 0; i < rows; i++) std::memcpy(to + i * ld, from + i * width, width * sizeof(T));
  }

  static void activate(T* row, long n) {
    lanes(n, [&](long j, long m) { put(row + j, Act::template value<T>(get(row + j, m)), m); });
  }

  // f(offset, count) on kLanes numbers at a time, the rest padded.
  template <typename F>
  LAMKIT_INLINE static void lanes(long n, F f) {
    long j = 0;
    for (; j + kLanes<T> <= n; j += kLanes<T>) f(j, static_cast<long>(kLanes<T>));
    if (j < n) f(j, n - j);
  }
  LAMKIT_INLINE static Vec<T> get(const T* p, long n) {
    if (n == kLanes<T>) return load<T>(p);
    Vec<T> v = {};
    std::memcpy(&v, p, n * sizeof(T));
    return v;
  }
  LAMKIT_INLINE static void put(T* p, Vec<T> v, long n) {
    if (n == kLanes<T>) store<T>(p, v);
    else std::memcpy(p, &v, n * sizeof(T));
  }

  // Gradient behind an activation -> before it, with what else is known of it; both kept where wanted.
  static void through(const Net<T>& net, T* block, long ld, long m0, long rows, const T* h, const T* add, T* keep, T* k) {
    for (long i = 0; i < rows; i++) {
      const long o = (m0 + i) * net.H;
      T* row = block + i * ld;
      lanes(net.H, [&](long j, long n) {
        Vec<T> g = get(row + j, n);
        if (keep) put(keep + o + j, g, n);
        g *= Act::template slope<T>(get(h + o + j, n));
        if (add) g += get(add + o + j, n);
        put(row + j, g, n);
        if (k) put(k + o + j, g, n);
      });
    }
  }

  // v [N, D] times a part of W1, plus b: [N, H]
  static const T* at_nodes(const Net<T>& net, const T* v, const Packed<T>& part, const T* b, size_t slot) {
    T* out = Arena::instance().get<T>(slot, net.N * net.H);
    product(net.N, v, net.D, part, out, net.H, [&](T* row) {
      if (b)
        for (long j = 0; j < net.H; j++) row[j] += b[j];
    });
    return out;
  }

  // out [M, N] = a [M, K] B, each row finished by a functor.
  template <typename Finish>
  static void product(long M, const T* a, long lda, const Packed<T>& b, T* out, long ldo, Finish finish) {
    Pool& pool = Pool::instance();
    const long wide = stride<T>(b.N), narrow = stride<T>(b.K), rows = block_rows<T>(M, std::max(b.N, b.K));
    T* scratch = Arena::instance().get<T>(kBlocks, pool.threads() * rows * (wide + narrow));
    pool.run((M + rows - 1) / rows, [&](long piece, int thread) {
      T *x = scratch + thread * rows * (wide + narrow), *y = x + rows * narrow;
      const long m0 = piece * rows, n = std::min(M - m0, rows);
      for (long i = 0; i < n; i++) std::memcpy(x + i * narrow, a + (m0 + i) * lda, b.K * sizeof(T));
      block_product(x, narrow, n, b, y, wide);
      for (long i = 0; i < n; i++) {
        finish(y + i * wide);
        std::memcpy(out + (m0 + i) * ldo, y + i * wide, b.N * sizeof(T));
      }
    });
  }

  // Adds rows of k, of the edges c0 ... c1, to the nodes at one of their ends, in the order of the edges.
  static void segment(const Net<T>& net, const int* index, long c0, long c1, const T* k, T* out) {
    const Order order(index + c0, c1 - c0, net.N);
    order.nodes([&](long i) {
      T* row = out + i * net.H;
      order.each(i, [&](long m) {
        const T* from = k + m * net.H;
        for (long j = 0; j < net.H; j++) row[j] += from[j];
      });
    });
  }

  // d_nodes = sent W1s + received W1r
  static void nodes_from_sums(const Net<T>& net, const Backward<T>& back, const T* sent, const T* received, T* out) {
    product(net.N, sent, net.H, back.at_sender, out, net.D, [](T*) {});
    T* more = Arena::instance().get<T>(kOuter, net.N * net.D);
    product(net.N, received, net.H, back.at_receiver, more, net.D, [](T*) {});
    for (long i = 0; i < net.N * net.D; i++) out[i] += more[i];
  }
};

}  // namespace lamkit
