// Training: the network of Orb's layers on many rows at once, its reverse sweep, and the reverse of that. A block of
// rows goes through all of it while it is in the cache; what the later sweeps need is written to memory.
#pragma once
#include "layers.h"

namespace lamkit {

template <typename T, typename Act, bool kCentred>
class Mlp : Layers<T, Act, kCentred> {
  using L = Layers<T, Act, kCentred>;
  using typename L::N_;
  using typename L::Widths;
  using L::at_nodes, L::copy_rows, L::get, L::hidden, L::in_blocks, L::lanes, L::nodes_from_sums, L::put, L::segment,
      L::through;

 public:
  // u [M, O]; h1, h2 [M, H] and y [M, O] are kept.
  static void forward(const Net<T>& net, T* u, T* h1, T* h2, T* y) {
    const auto ahead = Ahead<T>::fill(net);
    const T *sent = nullptr, *received = nullptr;
    if (net.N) {
      sent = at_nodes(net, net.nodes, ahead.at_sender, net.b1, kSent);
      received = at_nodes(net, net.nodes, ahead.at_receiver, nullptr, kReceived);
    }
    const Widths w(net, net.M);
    in_blocks(net.M, w, [&](long m0, long m1, T* x, T* a, T* b) {
      const long rows = m1 - m0;
      hidden(net, w, ahead, sent, received, m0, rows, x, a, b, h1 + m0 * net.H, h2 + m0 * net.H);
      for (long i = 0; i < rows; i++) {
        const long o = (m0 + i) * net.O;
        std::memcpy(y + o, x + i * w.small, net.O * sizeof(T));
        N_::value(x + i * w.small, net.gain, net.shift, u + o, a, net.O);
      }
    });
  }

  struct Reverse {
    const T *du, *h1, *h2, *y;
    const T *add1 = nullptr, *add2 = nullptr, *add_y = nullptr;  // further gradients with respect to h1, h2, y
    T *d_rows, *d_nodes = nullptr;
    T *a1 = nullptr, *a2 = nullptr, *dy = nullptr;               // kept for twice(): gradients before the activations
    T *W1 = nullptr, *b1 = nullptr, *W2 = nullptr, *b2 = nullptr, *W3 = nullptr, *b3 = nullptr;  // null: no weights
    T *gain = nullptr, *shift = nullptr;
  };

  static void reverse(const Net<T>& net, const Reverse& g) {
    const bool weights = g.W1 != nullptr;
    Arena& arena = Arena::instance();
    const auto back = Backward<T>::fill(net);
    // Without weight gradients, what goes from edges to nodes is summed chunk by chunk: memory stays small.
    const long chunk = weights || !net.N ? net.M : std::min<long>(net.M, 16384);
    const bool need1 = weights || net.N;
    T* k1 = need1 ? arena.get<T>(kK1, chunk * net.H) : nullptr;
    T* k2 = weights ? arena.get<T>(kK2, net.M * net.H) : nullptr;
    T* dy = g.dy ? g.dy : weights ? arena.get<T>(kY, net.M * net.O) : nullptr;
    T* units = weights ? arena.get<T>(kNorm, net.M * net.O) : nullptr;
    T *sent = nullptr, *received = nullptr;
    if (net.N) {
      sent = arena.get<T>(kSent, net.N * net.H);
      received = arena.get<T>(kReceived, net.N * net.H);
      std::fill(sent, sent + net.N * net.H, T(0));
      std::fill(received, received + net.N * net.H, T(0));
    }
    const Widths w(net, chunk);
    for (long c0 = 0; c0 < net.M; c0 += chunk) {
      const long c1 = std::min(net.M, c0 + chunk);
      in_blocks(c1 - c0, w, [&](long from, long to, T* x, T* a, T* b) {
        const long m0 = c0 + from, rows = to - from, O = net.O;
        for (long i = 0; i < rows; i++) {
          const long m = m0 + i;
          T* row = x + i * w.small;
          N_::reverse(g.y + m * O, net.gain, g.du + m * O, row, a, O);
          if (units)
            for (long j = 0; j < O; j++) units[m * O + j] = a[j] * g.du[m * O + j];
          if (g.add_y)
            for (long j = 0; j < O; j++) row[j] += g.add_y[m * O + j];
          if (dy) std::memcpy(dy + m * O, row, O * sizeof(T));
        }
        block_product(x, w.small, rows, back.w3, b, w.big);
        through(net, b, w.big, m0, rows, g.h2, g.add2, g.a2, k2);
        block_product(b, w.big, rows, back.w2, a, w.big);
        through(net, a, w.big, m0, rows, g.h1, g.add1, g.a1, k1 ? k1 - c0 * net.H : nullptr);
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
    const auto ahead = Ahead<T>::fill(net);
    const T *sent = nullptr, *received = nullptr;
    if (net.N) {
      sent = at_nodes(net, g.t_nodes, ahead.at_sender, nullptr, kSent);
      received = at_nodes(net, g.t_nodes, ahead.at_receiver, nullptr, kReceived);
    }
    Arena& arena = Arena::instance();
    // p1, p2: the tangents behind the activations; k1, k2: the gradients that reverse() multiplied weights with.
    T *p1 = arena.get<T>(kK1, net.M * net.H), *p2 = arena.get<T>(kK2, net.M * net.H);
    T* gains = arena.get<T>(kNorm, net.M * net.O);
    const Widths w(net, net.M);
    in_blocks(net.M, w, [&](long m0, long m1, T* x, T* a, T* b) {
      const long rows = m1 - m0, H = net.H, O = net.O;
      copy_rows(g.t_rows + m0 * net.K, net.K, rows, x, w.small);
      block_product(x, w.small, rows, ahead.w1, a, w.big);
      if (net.N)
        for (long i = 0; i < rows; i++) {
          const T* s = sent + net.senders[m0 + i] * H;
          const T* r = received + net.receivers[m0 + i] * H;
          for (long j = 0; j < H; j++) a[i * w.big + j] += s[j] + r[j];
        }
      tangent(net, a, w.big, m0, rows, g.h1, g.a1, g.out_h1, p1);
      block_product(a, w.big, rows, ahead.w2, b, w.big);
      tangent(net, b, w.big, m0, rows, g.h2, g.a2, g.out_h2, p2);
      block_product(b, w.big, rows, ahead.w3, x, w.small);
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
