#include "core/json/uri.h"

#include <cctype>

namespace guiderail {
namespace {

struct Parts {
  std::string_view scheme, authority, path, query;
  bool has_scheme = false, has_authority = false, has_query = false;
};

Parts parse(std::string_view uri) {
  Parts parts;
  std::size_t end = uri.find_first_of(":/?#");
  if (end != uri.npos && uri[end] == ':' && end > 0) {
    parts.scheme = uri.substr(0, end);
    parts.has_scheme = true;
    uri.remove_prefix(end + 1);
  }
  if (uri.starts_with("//")) {
    uri.remove_prefix(2);
    std::size_t stop = std::min(uri.find_first_of("/?"), uri.size());
    parts.authority = uri.substr(0, stop);
    parts.has_authority = true;
    uri.remove_prefix(stop);
  }
  std::size_t question = uri.find('?');
  parts.path = uri.substr(0, question);
  if (question != uri.npos) {
    parts.query = uri.substr(question + 1);
    parts.has_query = true;
  }
  return parts;
}

std::string remove_dot_segments(std::string_view in) {
  std::string out;
  while (!in.empty()) {
    if (in.starts_with("../")) {
      in.remove_prefix(3);
    } else if (in.starts_with("./")) {
      in.remove_prefix(2);
    } else if (in.starts_with("/./")) {
      in.remove_prefix(2);
    } else if (in == "/.") {
      in = "/";
    } else if (in.starts_with("/../") || in == "/..") {
      in = in.size() == 3 ? std::string_view("/") : in.substr(3);
      std::size_t slash = out.rfind('/');
      out.resize(slash == out.npos ? 0 : slash);
    } else if (in == "." || in == "..") {
      in = {};
    } else {
      std::size_t next = std::min(in.find('/', 1), in.size());
      out += in.substr(0, next);
      in.remove_prefix(next);
    }
  }
  return out;
}

}  // namespace

std::pair<std::string_view, std::string_view> split_fragment(std::string_view uri) {
  std::size_t hash = uri.find('#');
  if (hash == uri.npos) return {uri, {}};
  return {uri.substr(0, hash), uri.substr(hash + 1)};
}

std::string percent_decode(std::string_view text) {
  std::string out;
  auto hex = [](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && hex(text[i + 1]) >= 0 && hex(text[i + 2]) >= 0) {
      out.push_back(static_cast<char>(hex(text[i + 1]) * 16 + hex(text[i + 2])));
      i += 2;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

std::string resolve_uri(std::string_view base_text, std::string_view reference_text) {
  auto [reference_body, fragment] = split_fragment(reference_text);
  bool has_fragment = reference_text.find('#') != reference_text.npos;
  Parts base = parse(split_fragment(base_text).first), reference = parse(reference_body);
  Parts target = reference;
  std::string path;
  if (reference.has_scheme || reference.has_authority) {
    path = remove_dot_segments(reference.path);
    // A URN's path is opaque.
    if (reference.has_scheme && !reference.has_authority) path = std::string(reference.path);
    if (!reference.has_scheme) {
      target.scheme = base.scheme;
      target.has_scheme = base.has_scheme;
    }
  } else {
    target.scheme = base.scheme;
    target.has_scheme = base.has_scheme;
    target.authority = base.authority;
    target.has_authority = base.has_authority;
    if (reference.path.empty()) {
      path = std::string(base.path);
      if (!reference.has_query) {
        target.query = base.query;
        target.has_query = base.has_query;
      }
    } else if (reference.path.front() == '/') {
      path = remove_dot_segments(reference.path);
    } else {
      std::string merged;
      if (base.has_authority && base.path.empty())
        merged = "/";
      else if (std::size_t slash = base.path.rfind('/'); slash != base.path.npos)
        merged = std::string(base.path.substr(0, slash + 1));
      path = remove_dot_segments(merged + std::string(reference.path));
    }
  }
  std::string out;
  if (target.has_scheme) out += std::string(target.scheme) + ":";
  if (target.has_authority) out += "//" + std::string(target.authority);
  out += path;
  if (target.has_query) out += "?" + std::string(target.query);
  if (has_fragment) out += "#" + std::string(fragment);
  return out;
}

}  // namespace guiderail
