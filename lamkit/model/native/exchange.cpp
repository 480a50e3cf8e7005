// Operators of exchange.h as MindSpore calls them.
#include "exchange.h"

#include "call.h"

namespace {

using namespace lamkit;

// edges, update, cutoff, senders, receivers, weight, bias
template <typename T>
Gates<T> gates(Call& call, long nodes) {
  Gates<T> x;
  x.M = call.dim(0);
  x.D = call.dim(1);
  x.N = nodes;
  x.edges = call.next<T>();
  x.update = call.next<T>();
  x.cutoff = call.next<T>();
  x.senders = call.next<int>();
  x.receivers = call.next<int>();
  x.weight = call.next<T>();
  x.bias = call.next<T>();
  return x;
}

// nodes (for their number), gates -> messages, edges
template <typename T>
int forward(void** params, int64_t** shapes) {
  return guarded([&] {
    Call call{params, shapes};
    const long nodes = call.dim(0);
    call.next<T>();
    const auto x = gates<T>(call, nodes);
    T* messages = call.next<T>();
    Exchange<T>::forward(x, messages, call.next<T>());
  });
}

// d_messages, d_edges, gates -> edges, update, cutoff, [weight, bias]
template <typename T>
int reverse(void** params, int64_t** shapes, bool weights) {
  return guarded([&] {
    Call call{params, shapes};
    const long nodes = call.dim(0);
    const T* d_messages = call.next<T>();
    const T* d_edges = call.next<T>();
    const auto x = gates<T>(call, nodes);
    T* e = call.next<T>();
    T* u = call.next<T>();
    T* c = call.next<T>();
    T* w = weights ? call.next<T>() : nullptr;
    T* b = weights ? call.next<T>() : nullptr;
    Exchange<T>::reverse(x, d_messages, d_edges, e, u, c, w, b);
  });
}

// t_e, t_u, t_c, d_messages, d_edges, gates -> d_messages, d_edges, edges, update, cutoff, weight, bias
template <typename T>
int twice(void** params, int64_t** shapes) {
  return guarded([&] {
    Call call{params, shapes};
    typename Exchange<T>::Twice g{};
    g.t_e = call.next<T>();
    g.t_u = call.next<T>();
    g.t_c = call.next<T>();
    const long nodes = call.dim(0);
    g.d_messages = call.next<T>();
    g.d_edges = call.next<T>();
    const auto x = gates<T>(call, nodes);
    g.out_messages = call.next<T>();
    g.out_edges = call.next<T>();
    g.out_e = call.next<T>();
    g.out_u = call.next<T>();
    g.out_c = call.next<T>();
    g.out_w = call.next<T>();
    g.out_b = call.next<T>();
    Exchange<T>::twice(x, g);
  });
}

}  // namespace

extern "C" int exchange_forward(LAMKIT_ARGS) { return forward<LAMKIT_REAL>(params, shapes); }
extern "C" int exchange_pull(LAMKIT_ARGS) { return reverse<LAMKIT_REAL>(params, shapes, false); }
extern "C" int exchange_reverse(LAMKIT_ARGS) { return reverse<LAMKIT_REAL>(params, shapes, true); }
extern "C" int exchange_twice(LAMKIT_ARGS) { return twice<LAMKIT_REAL>(params, shapes); }
