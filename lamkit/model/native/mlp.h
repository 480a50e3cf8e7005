// The network of Orb's layers on many rows at once: Linear, activation, Linear, activation, Linear, norm, its
// reverse sweep, and the reverse of that. A block of rows goes through all of it while it is in the cache; of the
// hidden layers only what a later sweep needs is written to memory.
//
// For a row x:  h1 = W1 x + b1, h2 = W2 f(h1) + b2, y = W3 f(h2) + b3, u = norm(y).
// On edges x = [e, n_sender, n_receiver]; W1 is split in three and the node parts are applied once per node.
#pragma once
#include "edges.h"
#include "gemm.h"

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
enum Slot : size_t { kW1, kW2, kW3, kPacked, kNodes, kSent, kReceived, kSentIn, kReceivedIn, kBlocks, kK1, kK2, kY, kNorm, kOuter, kOuter2 };

template <bool kCentred, typename T>
struct Norm {
  static constexpr T eps() { return kCentred ? T(1e-5) : std::numeric_limits<T>::epsilon(); }

  // c = y (minus its mean), 1 / sqrt(mean c^2 + eps)
  static T centre(const T* y, T* c, long O) {
    const T mean = kCentred ? reduce<T>(O, [&](long i) { return y[i]; }) / O : T(0);
    for (long i = 0; i < O; i++) c[i] = y[i] - mean;
    return T(1) / std::sqrt(reduce<T>(O, [&](long i) { return c[i] * c[i]; }) / O + eps());
  }

  static void value(const T* y, const T* gain, const T* shift, T* u, T* c, long O) {
    const T s = centre(y, c, O);
    for (long i = 0; i < O; i++) u[i] = c[i] * s * gain[i] + (kCentred ? shift[i] : T(0));
  }

  static void project(T* v, long O) {
    if (!kCentred) return;
    const T mean = reduce<T>(O, [&](long i) { return v[i]; }) / O;
    for (long i = 0; i < O; i++) v[i] -= mean;
  }

  // dy = J^T du;  unit = c s, what the gain multiplies
  static void reverse(const T* y, const T* gain, const T* du, T* dy, T* unit, long O) {
    const T s = centre(y, unit, O);
    for (long i = 0; i < O; i++) unit[i] *= s;
    const T dot = reduce<T>(O, [&](long i) { return du[i] * gain[i] * unit[i]; }) / O;
    for (long i = 0; i < O; i++) dy[i] = s * (du[i] * gain[i] - unit[i] * dot);
    project(dy, O);
  }

  // Gradient of t . reverse(y, du): with respect to du (out_u), y (out_y) and gain (out_g).
  static void twice(const T* y, const T* gain, const T* du, T* t, T* out_u, T* out_y, T* out_g, T* unit, long O) {
    const T s = centre(y, unit, O);
    project(t, O);
    for (long i = 0; i < O; i++) unit[i] *= s;
    const T tz = reduce<T>(O, [&](long i) { return t[i] * du[i] * gain[i]; });
    const T tc = reduce<T>(O, [&](long i) { return t[i] * unit[i]; });
    const T zc = reduce<T>(O, [&](long i) { return du[i] * gain[i] * unit[i]; });
    const T n = T(1) / O;
    for (long i = 0; i < O; i++) {
      const T z = du[i] * gain[i];
      const T lift = s * (t[i] - tc * n * unit[i]);
      out_u[i] = gain[i] * lift;
      out_g[i] = du[i] * lift;
      out_y[i] = s * s * n * (unit[i] * (3 * tc * zc * n - tz) - zc * t[i] - tc * z);
    }
    project(out_y, O);
  }
};

// What a reverse sweep multiplies with, packed into one piece of memory, so that it can be kept from a forward
// sweep: W3, W2, the parts of W1, the gain of the norm.
template <typename T>
struct Backward {
  Packed<T> w3, w2, w1, at_sender, at_receiver;
  const T* gain;

  // Numbers that the memory holds; parts is 3 on edges, else 1.
  static long size(long H, long O, long K, long D) {
    return padded<T>(H) * (O + H) + padded<T>(K) * H + 2 * padded<T>(D) * H + O;
  }

  // The memory is there and filled.
  Backward(const Net<T>& net, const T* at) {
    w3 = {at, net.O, net.H};
    at += padded<T>(net.H) * net.O;
    w2 = {at, net.H, net.H};
    at += padded<T>(net.H) * net.H;
    w1 = {at, net.H, net.K};
    at += padded<T>(net.K) * net.H;
    at_sender = {at, net.H, net.D};
    at += padded<T>(net.D) * net.H;
    at_receiver = {at, net.H, net.D};
    gain = at + padded<T>(net.D) * net.H;
  }

  static void fill(const Net<T>& net, T* at) {
    const Backward b(net, at);
    pack(net.W3, net.H, net.O, net.H, const_cast<T*>(b.w3.data));
    pack(net.W2, net.H, net.H, net.H, const_cast<T*>(b.w2.data));
    pack(net.W1, net.width(), net.H, net.K, const_cast<T*>(b.w1.data));
    if (net.N) {
      pack(net.W1 + net.K, net.width(), net.H, net.D, const_cast<T*>(b.at_sender.data));
      pack(net.W1 + net.K + net.D, net.width(), net.H, net.D, const_cast<T*>(b.at_receiver.data));
    }
    std::memcpy(const_cast<T*>(b.gain), net.gain, net.O * sizeof(T));
  }
};

template <typename T, typename Act, bool kCentred>
class Mlp {
 public:
  using N_ = Norm<kCentred, T>;

  // u [M, O]; h1, h2 [M, H] and y [M, O] are kept unless null.
  static void forward(const Net<T>& net, T* u, T* h1, T* h2, T* y) {
    const auto w1 = pack_transposed(net.W1, net.width(), net.H, net.K, kW1);
    const auto w2 = pack_transposed(net.W2, net.H, net.H, net.H, kW2);
    const auto w3 = pack_transposed(net.W3, net.H, net.O, net.H, kW3);
    const T *sent = nullptr, *received = nullptr;
    if (net.N) {
      sent = at_nodes(net, net.nodes, net.W1 + net.K, net.b1, kSent);
      received = at_nodes(net, net.nodes, net.W1 + net.K + net.D, nullptr, kReceived);
    }
    const Widths w(net);
    in_blocks(net.M, w, [&](long m0, long m1, T* x, T* a, T* b) {
      const long rows = m1 - m0;
      T *p = h1 ? h1 + m0 * net.H : nullptr, *q = h2 ? h2 + m0 * net.H : nullptr;
      hidden(net, w, w1, w2, w3, sent, received, m0, rows, x, a, b, p, q);
      for (long i = 0; i < rows; i++) {
        const long o = (m0 + i) * net.O;
        if (y) std::memcpy(y + o, x + i * w.small, net.O * sizeof(T));
        N_::value(x + i * w.small, net.gain, net.shift, u + o, a, net.O);
      }
    });
  }

  struct Reverse {
    const T *du, *h1, *h2, *y;
    const T* packed = nullptr;  // Backward of the forward sweep; null: made from the weights
    const T *add1 = nullptr, *add2 = nullptr, *add_y = nullptr;  // further gradients with respect to h1, h2, y
    T *d_rows, *d_nodes = nullptr;
    T *a1 = nullptr, *a2 = nullptr, *dy = nullptr;               // kept for twice(): gradients before the activations
    T *W1 = nullptr, *b1 = nullptr, *W2 = nullptr, *b2 = nullptr, *W3 = nullptr, *b3 = nullptr;  // null: no weights
    T *gain = nullptr, *shift = nullptr;
  };

  static void reverse(const Net<T>& net, const Reverse& g) {
    const bool weights = g.W1 != nullptr;
    Arena& arena = Arena::instance();
    const T* packed = g.packed;
    if (!packed) {
      T* memory = arena.get<T>(kPacked, Backward<T>::size(net.H, net.O, net.K, net.D));
      Backward<T>::fill(net, memory);
      packed = memory;
    }
    const Backward<T> back(net, packed);
    // Without weight gradients, what goes from edges to nodes is summed chunk by chunk: memory stays small.
    const long chunk = weights || !net.N ? net.M : std::min<long>(net.M, 16384);
    const bool need1 = weights || net.N;
    T* k1 = need1 ? arena.get<T>(kK1, chunk * net.H) : nullptr;
    T* k2 = weights ? arena.get<T>(kK2, net.M * net.H) : nullptr;
    T* dy = g.dy ? g.dy : weights ? arena.get<T>(kY, net.M * net.O) : nullptr;
    T* units = weights ? arena.get<T>(kNorm, net.M * net.O) : nullptr;
    T *sent = nullptr, *received = nullptr;
    const T *sent_in = nullptr, *received_in = nullptr;
    Packed<T> w1{}, w2{}, w3{};
    const bool again = g.h1 == nullptr;  // the hidden layers were not kept: make them once more
    if (again) {
      w1 = pack_transposed(net.W1, net.width(), net.H, net.K, kW1);
      w2 = pack_transposed(net.W2, net.H, net.H, net.H, kW2);
      w3 = pack_transposed(net.W3, net.H, net.O, net.H, kW3);
      if (net.N) {
        sent_in = at_nodes(net, net.nodes, net.W1 + net.K, net.b1, kSentIn);
        received_in = at_nodes(net, net.nodes, net.W1 + net.K + net.D, nullptr, kReceivedIn);
      }
    }
    if (net.N) {
      sent = arena.get<T>(kSent, net.N * net.H);
      received = arena.get<T>(kReceived, net.N * net.H);
      std::fill(sent, sent + net.N * net.H, T(0));
      std::fill(received, received + net.N * net.H, T(0));
    }
    const Widths w(net, again ? 2 : 1);
    for (long c0 = 0; c0 < net.M; c0 += chunk) {
      const long c1 = std::min(net.M, c0 + chunk);
      in_blocks(c1 - c0, w, [&](long from, long to, T* x, T* a, T* b) {
        const long m0 = c0 + from, rows = to - from, O = net.O;
        const T *h1 = g.h1, *h2 = g.h2, *y = g.y;
        if (again) {
          T *p = b + w.rows * w.big, *q = p + w.rows * w.big, *r = q + w.rows * w.big;
          hidden(net, w, w1, w2, w3, sent_in, received_in, m0, rows, x, a, b, p, q);
          for (long i = 0; i < rows; i++) std::memcpy(r + i * O, x + i * w.small, O * sizeof(T));
          h1 = p - m0 * net.H;
          h2 = q - m0 * net.H;
          y = r - m0 * O;
        }
        for (long i = 0; i < rows; i++) {
          const long m = m0 + i;
          T* row = x + i * w.small;
          N_::reverse(y + m * O, back.gain, g.du + m * O, row, a, O);
          if (units)
            for (long j = 0; j < O; j++) units[m * O + j] = a[j] * g.du[m * O + j];
          if (g.add_y)
            for (long j = 0; j < O; j++) row[j] += g.add_y[m * O + j];
          if (dy) std::memcpy(dy + m * O, row, O * sizeof(T));
        }
        block_product(x, w.small, rows, back.w3, b, w.big);
        through(net, b, w.big, m0, rows, h2, g.add2, g.a2, k2);
        block_product(b, w.big, rows, back.w2, a, w.big);
        through(net, a, w.big, m0, rows, h1, g.add1, g.a1, k1 ? k1 - c0 * net.H : nullptr);
        block_product(a, w.big, rows, back.w1, x, w.small);
        for (long i = 0; i < rows; i++)
          std::memcpy(g.d_rows + (m0 + i) * net.K, x + i * w.small, net.K * sizeof(T));
      });
      if (net.N) {
        segment(net, net.senders, c0, c1, k1, sent);
        segment(net, net.receivers, c0, c1, k1, received);
      }
    }
    if (net.N) {
      nodes_from_sums(net, back, sent, received, g.d_nodes);
      if (weights) {
        outer(net.N, net.H, net.D, sent, net.nodes, g.W1 + net.K, net.width());
        outer(net.N, net.H, net.D, received, net.nodes, g.W1 + net.K + net.D, net.width());
      }
    }
    if (!weights) return;
    outer(net.M, net.H, net.K, k1, net.rows, g.W1, net.width(), g.b1);
    outer_active(net, k2, g.h1, net.H, g.W2, g.b2);
    outer_active(net, dy, g.h2, net.O, g.W3, g.b3);
    column_sums(units, net.M, net.O, g.gain);
    if (kCentred) column_sums(g.du, net.M, net.O, g.shift);
    else std::fill(g.shift, g.shift + net.O, T(0));  // RMS norm has none
  }

  struct Twice {
    const T *t_rows, *t_nodes = nullptr;           // gradients with respect to d_rows, d_nodes
    const T *du, *h1, *h2, *y, *a1, *a2, *dy;      // from forward() and reverse()
    T *out_du, *out_h1, *out_h2, *out_y;
    T *W1, *W2, *W3, *gain;
  };

  static void twice(const Net<T>& net, const Twice& g) {
    const auto w1 = pack_transposed(net.W1, net.width(), net.H, net.K, kW1);
    const auto w2 = pack_transposed(net.W2, net.H, net.H, net.H, kW2);
    const auto w3 = pack_transposed(net.W3, net.H, net.O, net.H, kW3);
    const T *sent = nullptr, *received = nullptr;
    if (net.N) {
      sent = at_nodes(net, g.t_nodes, net.W1 + net.K, nullptr, kSent);
      received = at_nodes(net, g.t_nodes, net.W1 + net.K + net.D, nullptr, kReceived);
    }
    Arena& arena = Arena::instance();
    // p1, p2: the tangents behind the activations; k1, k2: the gradients that reverse() multiplied weights with.
    T *p1 = arena.get<T>(kK1, net.M * net.H), *p2 = arena.get<T>(kK2, net.M * net.H);
    T* gains = arena.get<T>(kNorm, net.M * net.O);
    const Widths w(net);
    in_blocks(net.M, w, [&](long m0, long m1, T* x, T* a, T* b) {
      const long rows = m1 - m0, H = net.H, O = net.O;
      copy_rows(g.t_rows + m0 * net.K, net.K, rows, x, w.small);
      block_product(x, w.small, rows, w1, a, w.big);
      if (net.N)
        for (long i = 0; i < rows; i++) {
          const T* s = sent + net.senders[m0 + i] * H;
          const T* r = received + net.receivers[m0 + i] * H;
          for (long j = 0; j < H; j++) a[i * w.big + j] += s[j] + r[j];
        }
      tangent(net, a, w.big, m0, rows, g.h1, g.a1, g.out_h1, p1);
      block_product(a, w.big, rows, w2, b, w.big);
      tangent(net, b, w.big, m0, rows, g.h2, g.a2, g.out_h2, p2);
      block_product(b, w.big, rows, w3, x, w.small);
      for (long i = 0; i < rows; i++) {
        const long o = (m0 + i) * O;
        N_::twice(g.y + o, net.gain, g.du + o, x + i * w.small, g.out_du + o, g.out_y + o, gains + o, a, O);
      }
    });
    column_sums(gains, net.M, net.O, g.gain);
    outer(net.M, net.O, net.H, g.dy, p2, g.W3, net.H);
    // k = a f'(h) is made once more, a row piece at a time.
    outer_product<T>(
        net.M, net.H, net.H, [&](long m, long j, long n, T* out) { slope_times(g.a2, g.h2, m * net.H + j, n, out); },
        [&](long m, long j, long n, T* out) { std::memcpy(out, p1 + m * net.H + j, n * sizeof(T)); }, g.W2, net.H,
        static_cast<T*>(nullptr), kOuter);
    T* k1 = p2;  // p2 has done its work
    Pool::instance().run(net.M, [&](long m, int) {
      for (long j = 0; j < net.H; j += kCols<T>)
        slope_times(g.a1, g.h1, m * net.H + j, std::min<long>(kCols<T>, net.H - j), k1 + m * net.H + j);
    });
    outer(net.M, net.H, net.K, k1, g.t_rows, g.W1, net.width());
    if (net.N) {
      T *of_sent = arena.get<T>(kSent, net.N * net.H), *of_received = arena.get<T>(kReceived, net.N * net.H);
      for (T* sums : {of_sent, of_received}) std::fill(sums, sums + net.N * net.H, T(0));
      segment(net, net.senders, 0, net.M, k1, of_sent);
      segment(net, net.receivers, 0, net.M, k1, of_received);
      outer(net.N, net.H, net.D, of_sent, g.t_nodes, g.W1 + net.K, net.width());
      outer(net.N, net.H, net.D, of_received, g.t_nodes, g.W1 + net.K + net.D, net.width());
    }
  }

 private:
  struct Widths {
    long big, small, rows, blocks;
    // bigs: pairs of big blocks that a thread holds
    explicit Widths(const Net<T>& net, int bigs = 1) : big(stride<T>(net.H)), small(stride<T>(std::max(net.K, net.O))) {
      rows = block_rows<T>(net.M, net.H * bigs);
      blocks = bigs == 1 ? 2 : 5;  // a, b and, where layers are made again, h1, h2, y
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

  // Rows m0 ... up to y (before the norm), which is left in x; h1 and h2 go to p and q [rows, H] unless null.
  static void hidden(const Net<T>& net, const Widths& w, const Packed<T>& w1, const Packed<T>& w2, const Packed<T>& w3,
                     const T* sent, const T* received, long m0, long rows, T* x, T* a, T* b, T* p, T* q) {
    const long H = net.H;
    copy_rows(net.rows + m0 * net.K, net.K, rows, x, w.small);
    block_product(x, w.small, rows, w1, a, w.big);
    for (long i = 0; i < rows; i++) {
      T* row = a + i * w.big;
      if (net.N) {
        const T* s = sent + net.senders[m0 + i] * H;
        const T* r = received + net.receivers[m0 + i] * H;
        for (long j = 0; j < H; j++) row[j] += s[j] + r[j];
      } else {
        for (long j = 0; j < H; j++) row[j] += net.b1[j];
      }
      if (p) std::memcpy(p + i * H, row, H * sizeof(T));
      activate(row, H);
    }
    block_product(a, w.big, rows, w2, b, w.big);
    for (long i = 0; i < rows; i++) {
      T* row = b + i * w.big;
      for (long j = 0; j < H; j++) row[j] += net.b2[j];
      if (q) std::memcpy(q + i * H, row, H * sizeof(T));
      activate(row, H);
    }
    block_product(b, w.big, rows, w3, x, w.small);
    for (long i = 0; i < rows; i++)
      for (long j = 0; j < net.O; j++) x[i * w.small + j] += net.b3[j];
  }

  static void copy_rows(const T* from, long width, long rows, T* to, long ld) {
    for (long i = 0; i < rows; i++) std::memcpy(to + i * ld, from + i * width, width * sizeof(T));
  }

  static void activate(T* row, long n) {
    long j = 0;
    for (; j + kLanes<T> <= n; j += kLanes<T>) store<T>(row + j, Act::template value<T>(load<T>(row + j)));
    if (j < n) {
      Vec<T> v = tail(row + j, n - j);
      v = Act::template value<T>(v);
      std::memcpy(row + j, &v, (n - j) * sizeof(T));
    }
  }

  static Vec<T> tail(const T* p, long n) {
    Vec<T> v = {};
    std::memcpy(&v, p, n * sizeof(T));
    return v;
  }

  // f(a, h at offset ...) on kLanes numbers at a time, the rest padded.
  template <typename F>
  static void lanes(long n, F f) {
    for (long j = 0; j < n; j += kLanes<T>) f(j, std::min<long>(kLanes<T>, n - j));
  }
  static Vec<T> get(const T* p, long n) { return n == kLanes<T> ? load<T>(p) : tail(p, n); }
  static void put(T* p, Vec<T> v, long n) {
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

  // Tangent before an activation -> behind it; out = t a f''(h).
  static void tangent(const Net<T>& net, T* block, long ld, long m0, long rows, const T* h, const T* a, T* out, T* p) {
    for (long i = 0; i < rows; i++) {
      const long o = (m0 + i) * net.H;
      T* row = block + i * ld;
      lanes(net.H, [&](long j, long n) {
        Vec<T> value, slope, curvature;
        Act::template all<T>(get(h + o + j, n), value, slope, curvature);
        const Vec<T> t = get(row + j, n);
        put(out + o + j, t * get(a + o + j, n) * curvature, n);
        put(row + j, t * slope, n);
        put(p + o + j, t * slope, n);
      });
    }
  }

  static void slope_times(const T* a, const T* h, long offset, long n, T* out) {
    lanes(n, [&](long j, long m) {
      put(out + j, get(a + offset + j, m) * Act::template slope<T>(get(h + offset + j, m)), m);
    });
  }

  // v [N, D] times a part of W1, plus b: [N, H]
  static const T* at_nodes(const Net<T>& net, const T* v, const T* part, const T* b, size_t slot) {
    T* out = Arena::instance().get<T>(slot, net.N * net.H);
    const auto packed = pack_transposed(part, net.width(), net.H, net.D, kNodes);
    product(net.N, v, net.D, packed, out, net.H, [&](T* row) {
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
    Pool::instance().run(net.N, [&](long i, int) {
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

  static void outer(long M, long N, long K, const T* g, const T* x, T* c, long ldc, T* sums = nullptr) {
    outer_product<T>(
        M, N, K, [=](long m, long j, long n, T* out) { std::memcpy(out, g + m * N + j, n * sizeof(T)); },
        [=](long m, long j, long n, T* out) { std::memcpy(out, x + m * K + j, n * sizeof(T)); }, c, ldc, sums, kOuter);
  }

  // sum over rows of g^T f(h)
  static void outer_active(const Net<T>& net, const T* g, const T* h, long N, T* c, T* sums) {
    outer_product<T>(
        net.M, N, net.H, [=](long m, long j, long n, T* out) { std::memcpy(out, g + m * N + j, n * sizeof(T)); },
        [=](long m, long j, long n, T* out) {
          lanes(n, [&](long i, long l) { put(out + i, Act::template value<T>(get(h + m * net.H + j + i, l)), l); });
        },
        c, net.H, sums, kOuter);
  }

  static void column_sums(const T* rows, long M, long O, T* out) {
    std::fill(out, out + O, T(0));
    for (long m = 0; m < M; m++)
      for (long j = 0; j < O; j++) out[j] += rows[m * O + j];
  }
};

}  // namespace lamkit
